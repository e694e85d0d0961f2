"""The plan for transactions that the chain does not take, and the price of a replacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_gateway.settle.errors import SendClass
from taprail_gateway.settle.fees import Fees, bumped
from taprail_gateway.settle.stuck import MAX_VERSIONS, PATIENCE_BLOCKS, Case, Means, plan

QUIET = Case(
    is_lowest=True,
    is_noop=False,
    answer=None,
    versions=1,
    missed_blocks=1,
    priced_out=False,
    expired=False,
    asked=False,
)
REFUSED, CHEAP, LATE = SendClass.PERMANENT, SendClass.UNDERPRICED, PATIENCE_BLOCKS
HIGHER = {"is_lowest": False}
NOOP = {"is_noop": True}
USED_UP = {"versions": MAX_VERSIONS, "missed_blocks": LATE * MAX_VERSIONS}


@pytest.mark.parametrize(
    ("changes", "means"),
    [
        ({}, Means.RESEND),
        (HIGHER, Means.RESEND),
        ({"missed_blocks": LATE - 1}, Means.RESEND),
        ({"missed_blocks": LATE}, Means.BUMP),
        ({"missed_blocks": LATE, "versions": 2}, Means.RESEND),
        ({"missed_blocks": 2 * LATE, "versions": 2}, Means.BUMP),
        ({"missed_blocks": LATE, **HIGHER}, Means.RESEND),
        ({"missed_blocks": LATE, **NOOP}, Means.BUMP),
        ({"priced_out": True}, Means.BUMP),
        ({"priced_out": True, **HIGHER}, Means.BUMP),
        ({"priced_out": True, **NOOP}, Means.BUMP),
        ({"priced_out": True, "versions": MAX_VERSIONS}, Means.RESEND),
        ({"priced_out": True, "versions": MAX_VERSIONS, **NOOP}, Means.BUMP),
        ({"priced_out": True, "versions": 2 * MAX_VERSIONS, **NOOP}, Means.RESEND),
        ({"answer": CHEAP}, Means.BUMP),
        ({"answer": SendClass.FEE_LOW}, Means.BUMP),
        ({"answer": CHEAP, "versions": MAX_VERSIONS}, Means.RESEND),
        ({"answer": SendClass.AMBIGUOUS}, Means.RESEND),
        ({"answer": SendClass.FUNDS}, Means.RESEND),
        ({"answer": SendClass.WRONG_CHAIN}, Means.RESEND),
        ({"answer": SendClass.NONCE_HIGH}, Means.RESEND),
        ({"answer": REFUSED}, Means.NOOP),
        ({"answer": REFUSED, **HIGHER}, Means.RESEND),
        ({"answer": REFUSED, **NOOP}, Means.RESEND),
        ({"expired": True}, Means.NOOP),
        ({"expired": True, **HIGHER}, Means.NOOP),
        ({"expired": True, "priced_out": True}, Means.NOOP),
        ({"expired": True, "versions": MAX_VERSIONS}, Means.NOOP),
        ({"expired": True, **NOOP}, Means.RESEND),
        ({"asked": True, **HIGHER}, Means.BUMP),
        ({"asked": True, **NOOP}, Means.BUMP),
        ({"asked": True, "expired": True}, Means.NOOP),
        ({"asked": True, "versions": MAX_VERSIONS}, Means.RESEND),
        (USED_UP, Means.NOOP),
        ({**USED_UP, **HIGHER}, Means.RESEND),
    ],
)
def test_each_case_has_its_means(changes: dict[str, object], means: Means) -> None:
    assert plan(replace(QUIET, **changes)) is means  # type: ignore[arg-type]


def every_case() -> list[Case]:
    """All of them: each fact with each value that makes a difference."""
    values: dict[str, Sequence[object]] = {
        "is_lowest": (False, True),
        "is_noop": (False, True),
        "answer": (None, *SendClass),
        "versions": (1, MAX_VERSIONS - 1, MAX_VERSIONS, 2 * MAX_VERSIONS),
        "missed_blocks": (1, LATE, 10**6),
        "priced_out": (False, True),
        "expired": (False, True),
        "asked": (False, True),
    }
    return [
        Case(**dict(zip(values, each, strict=True)))  # type: ignore[arg-type]
        for each in product(*values.values())
    ]


def test_versions_are_bounded_in_every_case() -> None:
    for case in every_case():
        if case.versions >= 2 * MAX_VERSIONS:
            assert plan(case) is not Means.BUMP
        if case.is_noop:
            assert plan(case) is not Means.NOOP, "a no-op is only ever made dearer"


def test_nothing_that_may_still_pay_is_given_up_without_a_reason() -> None:
    for case in every_case():
        if plan(case) is Means.NOOP:
            used_up = case.versions >= MAX_VERSIONS and case.missed_blocks >= LATE * MAX_VERSIONS
            assert case.expired or (case.is_lowest and (case.answer is REFUSED or used_up))


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
