"""The plan for transactions that the chain does not take, and the price of a replacement."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_gateway.settle.fees import Fees, bumped
from taprail_gateway.settle.stuck import MAX_VERSIONS, PATIENCE_BLOCKS, Case, Means, plan

QUIET = Case(
    is_lowest=True,
    is_noop=False,
    is_refused=False,
    versions=1,
    missed_blocks=1,
    priced_out=False,
    expired=False,
    asked=False,
)


@pytest.mark.parametrize(
    ("changes", "means"),
    [
        ({}, Means.RESEND),
        ({"missed_blocks": PATIENCE_BLOCKS - 1}, Means.RESEND),
        ({"missed_blocks": PATIENCE_BLOCKS}, Means.BUMP),
        ({"missed_blocks": PATIENCE_BLOCKS, "is_lowest": False}, Means.RESEND),
        ({"priced_out": True}, Means.BUMP),
        ({"priced_out": True, "is_lowest": False}, Means.BUMP),
        ({"priced_out": True, "versions": MAX_VERSIONS}, Means.RESEND),
        ({"asked": True, "is_lowest": False}, Means.BUMP),
        ({"expired": True, "is_lowest": False}, Means.NOOP),
        ({"expired": True, "priced_out": True}, Means.NOOP),
        ({"expired": True, "versions": MAX_VERSIONS}, Means.NOOP),
        ({"expired": True, "is_noop": True}, Means.RESEND),
        ({"expired": True, "is_noop": True, "priced_out": True}, Means.BUMP),
        ({"is_refused": True}, Means.NOOP),
        ({"is_refused": True, "is_lowest": False}, Means.RESEND),
        ({"is_refused": True, "is_noop": True}, Means.RESEND),
    ],
)
def test_each_case_has_its_means(changes: dict[str, object], means: Means) -> None:
    assert plan(replace(QUIET, **changes)) is means  # type: ignore[arg-type]


def test_versions_are_bounded_in_every_case() -> None:
    flags = ("is_lowest", "is_refused", "priced_out", "expired", "asked")
    for values in product((False, True), repeat=len(flags)):
        case = replace(
            QUIET, **dict(zip(flags, values, strict=True)), is_noop=True, versions=MAX_VERSIONS
        )
        assert plan(case) is Means.RESEND


@given(
    st.integers(0, 10**13), st.integers(0, 10**12), st.integers(0, 10**13), st.integers(0, 10**12)
)
def test_a_replacement_raises_both_fees_by_an_eighth_and_never_exceeds_the_cap(
    old_fee: int, old_tip: int, fee: int, tip: int
) -> None:
    cap = 10**13
    new = bumped(Fees(old_fee, old_tip), Fees(fee, tip), cap)
    if new is None:
        return
    assert new.max_fee_wei <= cap
    assert new.priority_fee_wei <= new.max_fee_wei
    assert 8 * new.max_fee_wei >= 9 * old_fee
    assert 8 * new.priority_fee_wei >= 9 * old_tip
    assert new.max_fee_wei > old_fee
    assert new.priority_fee_wei > old_tip
    assert new.max_fee_wei >= fee


def test_over_the_cap_there_is_no_replacement() -> None:
    assert bumped(Fees(100, 1), Fees(50, 1), 112) is None
    assert bumped(Fees(100, 1), Fees(50, 1), 113) == Fees(113, 2)
