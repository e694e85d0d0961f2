"""Fees by the base fee and the queue ahead, and what the market pays, against plain arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_gateway.settle.errors import ChainError, FeeCapError
from taprail_gateway.settle.fee_watch import market_tip, read_history
from taprail_gateway.settle.fees import quote
from taprail_gateway.settle.replies import Block

GWEI = 10**9
HEAD = Block(7, "0x" + "00" * 32, 0, 8_000, 30_000_000)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 10**13), st.integers(0, 40))
def test_fees_outlive_the_queue_ahead_and_six_blocks_or_reach_the_cap(
    base: int, tip: int, cap: int, ahead: int
) -> None:
    if base + tip > cap:
        with pytest.raises(FeeCapError, match="over the cap"):
            quote(base, tip, cap, blocks_ahead=ahead)
        return
    fees = quote(base, tip, cap, blocks_ahead=ahead)
    risen = base
    for _ in range(ahead + 6):
        risen += risen // 8
    assert fees.max_fee_wei >= min(risen + tip, cap)
    assert base + tip <= fees.max_fee_wei <= cap
    assert fees.priority_fee_wei == tip


def test_a_queue_without_end_asks_for_a_bounded_fee() -> None:
    assert quote(1, 0, 10**9, blocks_ahead=10**9).max_fee_wei < 300


def test_the_refusal_says_in_gwei_what_is_asked_and_allowed() -> None:
    with pytest.raises(FeeCapError, match=r"asks 31.5 gwei per gas, over the cap of 30:"):
        quote(30 * GWEI, 3 * GWEI // 2, 30 * GWEI)


@pytest.mark.parametrize(
    ("paid", "tip"), [([], 100), ([50], 100), ([300, 200, 400], 300), ([10**9], 1_000)]
)
def test_the_tip_is_what_full_blocks_pay_within_bounds(paid: list[int], tip: int) -> None:
    assert market_tip(paid, 100) == tip


def test_only_full_blocks_tell_what_a_tip_costs() -> None:
    value = {
        "baseFeePerGas": ["0x1f40", "0x1f40", "0x2000"],
        "gasUsedRatio": [0.5, 1],
        "reward": [["0x9"], ["0x7"]],
    }
    history = read_history(value, HEAD)
    assert (history.next_base_fee_wei, history.full_blocks_tips_wei) == (0x2000, [7])


GOOD = {"baseFeePerGas": ["0x1f40", "0x1f40"], "gasUsedRatio": [1.0], "reward": [["0x1"]]}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {**GOOD, "baseFeePerGas": ["0x1f40"]},
        {**GOOD, "baseFeePerGas": ["0x1f40", "0x232a"]},  # more than an eighth over the head's
        {**GOOD, "baseFeePerGas": ["0x1f40"] * 1_000},
        {**GOOD, "gasUsedRatio": ["full"]},
        {**GOOD, "reward": [[]]},
        {**GOOD, "reward": None},
        {**GOOD, "reward": [[17]]},
    ],
)
def test_a_history_that_cannot_be_right_is_refused(wrong: object) -> None:
    with pytest.raises(ChainError):
        read_history(wrong, HEAD)
