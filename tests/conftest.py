"""Fixtures shared by all tests, and what happens where a system part is missing."""

from pathlib import Path

import pytest

from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.published import Published

pytest_plugins = [
    "taprail_hwsim.pytest_plugin",
    "tests.support.admin_fixtures",
    "tests.support.chain_fixtures",
    "tests.support.ledger_fixtures",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest -m chain --token FiatTokenV2_2.json`: all of it against the published contracts."""
    parser.addoption("--token", type=Path, help="artifact of the published FiatTokenV2")
    parser.addoption("--multicall", type=Path, help="artifact of the published Multicall3")


def pytest_configure(config: pytest.Config) -> None:
    DevChain.published = Published(config.getoption("token"), config.getoption("multicall"))
