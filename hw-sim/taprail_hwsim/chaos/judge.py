"""Holds what was promised to customers against what the chain did. Pure.

The chain's `Transfer` events decide; the ledger's word is checked against them. A payment's id is
the authorization nonce beside its transfer, so the two find each other without the gateway's help.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from taprail_hwsim.chaos.crowd import Sale
from taprail_hwsim.transfers import Transfer

COMPLETED: Final = "completed"
OPEN: Final = frozenset({"pending", "processing", "sent", "confirmation_failed"})
"""Under way, or waiting for somebody: stuck when the time is over. No fault lasts as long as a
payment may be unconfirmed, so none has a `confirmation_failed` coming to it."""


@dataclass(frozen=True)
class Books:
    """What ledger and chain say at one moment."""

    states: Mapping[str, str]
    """Payment id to state, of the whole ledger."""
    transfers: Sequence[Transfer]
    """To the merchant, since the beginning."""
    ledger_units: int = 0
    invariants_broken: Sequence[str] = ()
    paused_lanes: Mapping[str, str] = field(default_factory=dict)
    """Lane to reason: each pause has to end by itself when its cause has."""


@dataclass(frozen=True)
class Judgement:
    """What was found; payments by their ids."""

    approved: int = 0
    settled: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)
    """Money that moved without an approval."""
    unanswered: list[str] = field(default_factory=list)
    """Requests that never got a signed verdict."""
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether everything is as promised."""
        found = (self.lost, self.doubled, self.stuck, self.unasked, self.unanswered, self.problems)
        return not any(found)

    def in_words(self) -> str:
        """What is wrong, in one line."""
        parts = [f"{len(ids)} {name}" for name, ids in self._lists().items() if ids]
        return ", ".join(parts + self.problems) or "nothing lost, doubled or stuck"

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "holds": self.holds}

    def _lists(self) -> dict[str, list[str]]:
        names = ("lost", "doubled", "stuck", "unasked", "unanswered")
        return {name: getattr(self, name) for name in names}


def still_open(sales: Iterable[Sale], books: Books) -> set[str]:
    """Approved payments that are not at their end yet, by ledger or chain."""
    moved = {transfer.nonce for transfer in books.transfers}
    return {
        sale.payment_id
        for sale in sales
        if sale.is_approved
        and (books.states.get(sale.payment_id) != COMPLETED or sale.payment_id not in moved)
    }


def judge(sales: Sequence[Sale], books: Books, *, trouble: Sequence[str] = ()) -> Judgement:
    """The judgement on all sales so far; `trouble` is what was noticed besides, like a gateway
    that ended by itself."""
    moved = Counter(str(transfer.nonce) for transfer in books.transfers)
    approved = {sale.payment_id: sale for sale in sales if sale.is_approved}
    unanswered = [sale.payment_id for sale in sales if sale.outcome is None]
    lost, stuck = [], []
    for payment_id in approved:
        state = books.states.get(payment_id, "no row")
        if state in OPEN:
            stuck.append(payment_id)
        elif state != COMPLETED or not moved[payment_id]:
            lost.append(payment_id)
    known = approved.keys() | set(unanswered)
    return Judgement(
        approved=len(approved),
        settled=sum(1 for payment_id in approved if moved[payment_id]),
        lost=lost,
        doubled=[nonce for nonce, times in moved.items() if times > 1],
        stuck=stuck,
        unasked=[nonce for nonce in moved if nonce not in known],
        unanswered=unanswered,
        problems=[*_money(approved, books), *books.invariants_broken, *_lanes(books), *trouble],
    )


def _lanes(books: Books) -> list[str]:
    return [f"{lane} is still paused ({why})" for lane, why in books.paused_lanes.items()]


def _money(approved: Mapping[str, Sale], books: Books) -> list[str]:
    problems = []
    chain_units = sum(transfer.amount_units for transfer in books.transfers)
    if chain_units != books.ledger_units:
        problems.append(f"the ledger says {books.ledger_units} units, the chain {chain_units}")
    wrong = [
        transfer.nonce
        for transfer in books.transfers
        if (sale := approved.get(str(transfer.nonce))) is not None
        and (sale.amount_units, sale.payer.lower()) != (transfer.amount_units, transfer.sender)
    ]
    return problems + [f"{nonce}: another amount or payer than approved" for nonce in wrong]
