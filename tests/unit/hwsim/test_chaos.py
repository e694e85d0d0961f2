"""The pure parts of chaos: the schedule repeats itself, and the judge finds what is wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from taprail_common.wire import Outcome
from taprail_hwsim.chaos.crowd import Sale
from taprail_hwsim.chaos.judge import Books, judge, still_open
from taprail_hwsim.chaos.report import BlockCell
from taprail_hwsim.chaos.schedule import rounds
from taprail_hwsim.chaos.screen import timeline
from taprail_hwsim.chaos.troubles import about, catalogue, select_names
from taprail_hwsim.rpc_proxy import FAULTS, parse_rule
from taprail_hwsim.transfers import Transfer

PAYER = "0x" + "aa" * 20
MERCHANT = "0x" + "bb" * 20


# --- the schedule ---------------------------------------------------------------------------------


def plan(seed: int, count: int, *wanted: str) -> list[str]:
    draws = catalogue()
    names = select_names(wanted, list(draws))
    return [str(item) for item in itertools.islice(rounds(seed, names, draws), count)]


def test_a_seed_repeats_its_schedule() -> None:
    assert plan(7, 80) == plan(7, 80)
    assert plan(7, 80) != plan(8, 80)


def test_each_fault_comes_alone_once_before_any_comes_together() -> None:
    draws = catalogue()
    names = list(draws)
    first = list(itertools.islice(rounds(3, names, draws), 2 * len(names)))
    assert sorted(item.names for item in first[: len(names)]) == sorted((name,) for name in names)
    together = first[len(names) : len(names) + len(names) // 2]
    assert all(len(item.troubles) > 1 for item in together)
    for item in together:
        kinds = [trouble.kind for trouble in item.troubles]
        assert len(kinds) == len(set(kinds)), "two hands on one thing"


def test_every_fault_of_the_proxy_takes_part_with_a_rule_that_can_be_read() -> None:
    assert set(FAULTS) < set(catalogue())
    for text in plan(5, 200, *FAULTS):
        for rule in text.split(" + "):
            parse_rule(rule.partition(" for ")[0])


def test_receipts_are_asked_for_where_they_are_to_be_wrong() -> None:
    for name in ("null_receipt", "flipped_status", "wrong_block_hash"):
        (text,) = plan(5, 1, name)
        assert text.endswith("(with http_502@eth_getLogs)")
    (text,) = plan(5, 1, "missing_logs")
    assert "with" not in text


def test_faults_are_chosen_by_name() -> None:
    names = list(catalogue())
    crashes = select_names(["crash"], names)
    assert len(crashes) >= 7
    assert {name.partition(":")[0] for name in crashes} == {"crash"}
    depths = [f"reorg:{depth}" for depth in range(1, 7)]
    assert select_names(["reorg", "kill"], names) == [*depths, "kill"]
    assert select_names(["reorg:4"], names) == ["reorg:4"]
    assert select_names([], names) == names
    with pytest.raises(ValueError, match="no fault 'gremlins'"):
        select_names(["gremlins"], names)
    assert {"node_pause", "node_restart"} & set(catalogue(node_is_ours=False)) == set()


def test_every_fault_says_what_it_is() -> None:
    for name in catalogue():
        assert about(name).endswith("."), name


# --- the judge ------------------------------------------------------------------------------------


def sale(number: int, outcome: Outcome | None = Outcome.APPROVED) -> Sale:
    return Sale(f"0x{number:064x}", PAYER, 100, b"", outcome)


def transfer(of: Sale, **changes: Any) -> Transfer:
    plain = Transfer(PAYER, MERCHANT, of.amount_units, of.payment_id, 5, "0x1", 0)
    return replace(plain, **changes)


ONE, TWO, NO = sale(1), sale(2), sale(3, Outcome.DECLINED)
SALES = [ONE, TWO, NO]
GOOD = Books(
    {ONE.payment_id: "completed", TWO.payment_id: "completed"},
    [transfer(ONE), transfer(TWO)],
    ledger_units=200,
)


def with_state(state: str, *transfers: Transfer) -> Books:
    """The second payment in another state; the ledger counts what the chain does."""
    units = sum(item.amount_units for item in transfers)
    return Books({**GOOD.states, TWO.payment_id: state}, transfers, units)


def test_books_that_agree_hold() -> None:
    found = judge(SALES, GOOD)
    assert found.holds
    assert (found.approved, found.settled) == (2, 2)
    assert still_open(SALES, GOOD) == set()


BROKEN: dict[str, tuple[Callable[[], Books], str]] = {
    "paid twice": (
        lambda: replace(GOOD, transfers=[*GOOD.transfers, transfer(TWO)], ledger_units=300),
        "1 doubled",
    ),
    "completed by the ledger alone": (lambda: with_state("completed", transfer(ONE)), "1 lost"),
    "failed, and approved": (lambda: with_state("failed", transfer(ONE)), "1 lost"),
    "no row": (
        lambda: Books({ONE.payment_id: "completed"}, [transfer(ONE)], 100),
        "1 lost",
    ),
    "pending": (lambda: with_state("pending", transfer(ONE)), "1 stuck"),
    "for review": (lambda: with_state("confirmation_failed", transfer(ONE)), "1 stuck"),
    "paid, and not noticed": (lambda: with_state("sent", transfer(ONE), transfer(TWO)), "1 stuck"),
    "declined, and charged": (
        lambda: replace(GOOD, transfers=[*GOOD.transfers, transfer(NO)], ledger_units=300),
        "1 unasked",
    ),
    "nobody's": (
        lambda: replace(GOOD, transfers=[*GOOD.transfers, transfer(sale(9))], ledger_units=300),
        "1 unasked",
    ),
    "another amount": (
        lambda: replace(GOOD, transfers=[transfer(ONE, amount_units=101), transfer(TWO)]),
        "another amount or payer",
    ),
    "another payer": (
        lambda: replace(GOOD, transfers=[transfer(ONE, sender=MERCHANT), transfer(TWO)]),
        "another amount or payer",
    ),
    "sums that differ": (
        lambda: replace(GOOD, ledger_units=201),
        "the ledger says 201 units, the chain 200",
    ),
    "a lane that rests": (
        lambda: replace(GOOD, paused_lanes={"0xabc": "funds: empty"}),
        "0xabc is still paused (funds: empty)",
    ),
    "broken rules": (lambda: replace(GOOD, invariants_broken=["a hold too much"]), "a hold"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_found(name: str) -> None:
    books, words = BROKEN[name]
    found = judge(SALES, books())
    assert not found.holds
    assert words in found.in_words()


def test_a_request_without_a_verdict_is_found_whatever_became_of_it() -> None:
    open_sale = sale(4, None)
    found = judge(
        [*SALES, open_sale],
        replace(GOOD, ledger_units=300, transfers=[*GOOD.transfers, transfer(open_sale)]),
    )
    assert found.unanswered == [open_sale.payment_id]
    assert found.unasked == []


def test_what_is_not_at_its_end_is_waited_for() -> None:
    for books in (with_state("sent", transfer(ONE), transfer(TWO)), with_state("completed")):
        assert TWO.payment_id in still_open(SALES, books)
    assert still_open([NO], GOOD) == set()


def test_a_gateway_that_ended_by_itself_is_a_problem() -> None:
    assert judge(SALES, GOOD, trouble=["gateway ended with code 1"]).problems == [
        "gateway ended with code 1"
    ]


def test_the_timeline_has_a_bar_a_block() -> None:
    cells = [BlockCell(0, False), BlockCell(1, True), BlockCell(8, True), BlockCell(4, False)]
    line = timeline(cells)
    assert line.plain == "·▁█▄"
    assert [str(span.style) for span in line.spans] == ["green", "red", "red", "green"]
