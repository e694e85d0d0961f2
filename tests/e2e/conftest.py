"""Fixtures of the end-to-end tests: chain, gateway and terminal as real processes.

A stack takes seconds to start, so the tests of a module share one, and pytest-xdist has to keep a
module together (`--dist loadfile`); each test uses cards of its own, and leaves gateway, terminal
and node running.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.process import Program
from taprail_hwsim.stack import Stack, StackOptions
from tests.support import warm


@pytest.fixture(scope="module", autouse=True)
def _warm_programs() -> Iterator[None]:
    """Stacks that tests hold themselves start their programs warm; whatever starts a stack of its
    own (`taprail-sim up`, `demo` and `chaos`) does so as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Program, "spawn", staticmethod(warm.spawn))
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A running stack. Its folder's name is short because the path of a socket must be."""
    async with Stack(StackOptions(tmp_path_factory.mktemp("s"))) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def blocks(stack: Stack) -> AsyncIterator[BlockWatch]:
    """The stack's blocks as they come: what tests wait for instead of sleeping."""
    async with BlockWatch(stack.chain.rpc_url) as watch:
        yield watch
