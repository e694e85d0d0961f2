"""Fixtures shared by all tests, and the order in which these are run."""

import gc
from collections.abc import Generator
from pathlib import Path
from typing import Final

import hypothesis
import pytest

from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.published import Published

pytest_plugins = [
    "taprail_hwsim.pytest_plugin",
    "tests.support.admin_fixtures",
    "tests.support.chain_fixtures",
    "tests.support.ledger_fixtures",
]

hypothesis.settings.register_profile("taprail", deadline=None)  # a busy machine fails no test
hypothesis.settings.load_profile("taprail")

LONG_FIRST: Final = ("model", "e2e", "integration")
"""A file of theirs may take a minute. Begun last it would keep one core busy alone; the thousands
of quick tests fill whatever is left. Files are dealt to processes in this order, as long as
`--no-loadscope-reorder` keeps pytest-xdist from dealing those with one long test last."""
_TESTS: Final = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest -m chain --token FiatTokenV2_2.json`: all of it against the published contracts."""
    parser.addoption("--token", type=Path, help="artifact of the published FiatTokenV2")
    parser.addoption("--multicall", type=Path, help="artifact of the published Multicall3")


def pytest_configure(config: pytest.Config) -> None:
    DevChain.published = Published(config.getoption("token"), config.getoption("multicall"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays until the end: no garbage is looked for in it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first; within a kind they stay as they are."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    kind = item.path.relative_to(_TESTS).parts[0]
    return LONG_FIRST.index(kind) if kind in LONG_FIRST else len(LONG_FIRST)
