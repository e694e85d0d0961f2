"""Which cores the gateway's threads run on: asked of the system, in threads of the test's own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from taprail_gateway import cores

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="this process may run on one core only"
)


def here() -> set[int]:
    return os.sched_getaffinity(0)


def with_starters() -> tuple[set[int], set[int], set[int]]:
    """The cores of a thread that shares one, of a thread that it starts, and of one that roams."""
    cores.share_one()
    with ThreadPoolExecutor(1) as stays, ThreadPoolExecutor(1, initializer=cores.roam) as roams:
        return here(), stays.submit(here).result(), roams.submit(here).result()


def test_a_thread_and_those_that_it_starts_share_a_core_unless_they_roam() -> None:
    before = here()
    with ThreadPoolExecutor(1) as thread:
        shared, started, roaming = thread.submit(with_starters).result()
        again = thread.submit(with_starters).result()[0]
    assert len(shared) == 1
    assert shared <= before
    assert started == shared == again
    assert roaming == before == here()
