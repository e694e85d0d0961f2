"""When the next block is looked for, and when a lane counts as stuck."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_gateway.settle.heads import BlockRhythm, LatestHead, StallWatch
from taprail_gateway.settle.replies import Block

LONGEST_S = 2.0


def block(number: int, time_s: int = 0) -> Block:
    return Block(number, f"0x{number:064x}", time_s, 10**9, 30_000_000)


def learnt(interval_s: float, count: int = 20) -> BlockRhythm:
    """A rhythm that has seen blocks of an interval, the last at monotonic time 100."""
    rhythm = BlockRhythm(lambda: LONGEST_S)
    for i in range(count):
        rhythm.saw(block(i, int(i * interval_s)), 100 - (count - 1 - i) * interval_s)
    return rhythm


def test_the_interval_is_learnt_from_the_blocks_own_times() -> None:
    assert BlockRhythm(lambda: LONGEST_S).interval_s is None
    assert learnt(1).interval_s == 1
    assert learnt(12).interval_s == 12
    assert learnt(0.25, 33).interval_s == pytest.approx(0.25, rel=0.2)


def test_it_rests_while_no_block_is_due_and_looks_often_when_one_is() -> None:
    rhythm = learnt(1)
    assert rhythm.wait_s(100.0) == pytest.approx(0.85)
    assert rhythm.wait_s(100.85) == pytest.approx(0.1)
    assert rhythm.wait_s(101.0) == pytest.approx(0.1)


def test_a_long_interval_is_waited_for_in_steps() -> None:
    rhythm = learnt(12)
    assert rhythm.wait_s(100.0) == LONGEST_S
    assert rhythm.wait_s(110.1) == pytest.approx(0.2)


def test_the_longest_wait_may_change_while_blocks_are_watched() -> None:
    longest_s = 5.0
    rhythm = BlockRhythm(lambda: longest_s)
    rhythm.saw(block(1, 12), 88.0)
    rhythm.saw(block(2, 24), 100.0)
    assert rhythm.wait_s(100.0) == 5.0
    longest_s = 0.5
    assert rhythm.wait_s(100.0) == 0.5


def test_a_stopped_chain_is_asked_less_and_less() -> None:
    rhythm = learnt(1)
    waits = [rhythm.wait_s(100.0 + late) for late in (1, 5, 10, 60)]
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(0.1)
    assert waits[-1] == LONGEST_S


def test_a_reorg_begins_anew() -> None:
    rhythm = learnt(1)
    rhythm.saw(block(5, 5), 101)
    assert rhythm.interval_s is None


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10**9)), max_size=40),
    st.floats(0, 10**6),
)
def test_every_wait_is_bounded_whatever_the_node_says(
    blocks: list[tuple[int, int]], now_s: float
) -> None:
    rhythm = BlockRhythm(lambda: LONGEST_S)
    for at, (number, time_s) in enumerate(blocks):
        rhythm.saw(block(number, time_s), float(at))
    assert 0.05 <= rhythm.wait_s(now_s) <= LONGEST_S


def test_a_head_is_known_for_a_while() -> None:
    head = LatestHead()
    assert head.not_older_than(3, 1.0) is None
    head.saw(block(7), 10.0)
    assert head.not_older_than(3, 13.0) == block(7)
    assert head.not_older_than(3, 13.1) is None


def test_a_lane_is_stuck_when_its_lowest_nonce_misses_two_blocks() -> None:
    watch = StallWatch()
    assert not watch.is_stalled(4, 100)
    assert not watch.is_stalled(4, 100), "the same block is no second miss"
    assert watch.is_stalled(4, 101)
    assert watch.is_stalled(4, 102), "and again with every block"
    assert not watch.is_stalled(5, 103), "it moved"
    assert not watch.is_stalled(None, 105)
    assert not watch.is_stalled(5, 106)
