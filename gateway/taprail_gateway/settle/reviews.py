"""Looks again at payments that no transaction in flight will settle: three lists, each pass a part.

Those that were not confirmed in time are put on the list for review; those on the list are paid
after all, sent again or disproved once all that was signed for them has ended; those that a
preflight refused are paid if somebody else has carried them out, and rejected by the same proof
when they are not tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sqlalchemy import Connection

from taprail_common.crash import crash
from taprail_gateway.ledger import under_way
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.queries import BoundPayment, OpenTransaction
from taprail_gateway.settle import judge
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.executions import Fate
from taprail_gateway.settle.fates import FateReader
from taprail_gateway.settle.judge import Facts, Judgement, Step
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.record import Outcome, Recorder
from taprail_gateway.settle.replies import Block
from taprail_gateway.settle.view import HeldLane, View

# Payments of one list and one lane that a pass looks at; who is left out comes first in the next.
_MAX_LISTED: Final = 500
# Transactions that one read fetches, and reads of one pass, in search of what is overdue.
_PAGE: Final = 50
_MAX_PAGES: Final = 40
_NO_END: Final = 2**62

_Listing = Callable[[Connection, str, int], list[BoundPayment]]
_Judge = Callable[[BoundPayment, Facts, bool], Judgement]


@dataclass
class Reviewer:
    """Reviews for one confirmer; the places in its lists are all that it remembers."""

    ledger: Ledger
    chain: Chain
    live: LiveSettings
    fates: FateReader
    record: Recorder
    _offsets: dict[tuple[str, str], int] = field(default_factory=dict, init=False)
    _next_nonce: dict[str, int] = field(default_factory=dict, init=False)

    async def given_up(self, view: View, now_s: float) -> None:
        """Those on the list for review whose authorizations have all ended."""
        until_s = view.block.time_s

        def listing(connection: Connection, lane: str, offset: int) -> list[BoundPayment]:
            return under_way.given_up(
                connection, lane, signed_until_s=until_s, offset=offset, limit=_MAX_LISTED
            )

        def decide(payment: BoundPayment, facts: Facts, is_proven: bool) -> Judgement:
            return judge.expired(payment, facts, is_proven=is_proven)

        await self._review("given_up", listing, decide, view, now_s)

    async def refused(self, view: View, now_s: float) -> None:
        """Those that are pending and were refused by a preflight."""

        def listing(connection: Connection, lane: str, offset: int) -> list[BoundPayment]:
            return under_way.refused(connection, lane, offset=offset, limit=_MAX_LISTED)

        def decide(payment: BoundPayment, facts: Facts, is_proven: bool) -> Judgement:
            return judge.refused(payment, facts, is_proven=is_proven)

        await self._review("refused", listing, decide, view, now_s)

    async def _review(
        self, name: str, listing: _Listing, decide: _Judge, view: View, now_s: float
    ) -> None:
        listed: list[tuple[HeldLane, list[BoundPayment]]] = []
        seen: set[str] = set()
        for held in view.lanes:
            page = await self._page(name, listing, held.lane.address)
            # One that no lane has claimed is on the list of each.
            listed.append((held, [payment for payment in page if payment.id not in seen]))
            seen.update(payment.id for payment in page)
        payments = [payment for _, part in listed for payment in part]
        if not payments:
            return
        facts = await self.fates.read(payments, view.block, now_s)
        proof = await self._proof_block(view)
        proof_s = proof.time_s if proof is not None else 0
        lately = await self._burnt_after(proof, payments, facts)
        outcomes = []
        for held, part in listed:
            outcome = Outcome(view.block, held.lease, final_time_s=proof_s)
            for payment in part:
                is_proven = payment.signed_until_s <= proof_s and payment.id not in lately
                outcome.verdicts.add(payment, decide(payment, facts[payment.id], is_proven))
            outcomes.append(outcome)
        await self.record.write(outcomes)

    async def _page(self, name: str, listing: _Listing, lane: str) -> list[BoundPayment]:
        offset = self._offsets.get((name, lane), 0)
        page = await self.ledger.read(lambda connection: listing(connection, lane, offset))
        self._offsets[name, lane] = offset + len(page) if len(page) == _MAX_LISTED else 0
        return page

    async def _proof_block(self, view: View) -> Block | None:
        """The newest block that is deep enough to prove a failure by; None: there is none yet."""
        if self.live.now.confirmations == "finalized":
            return view.block
        number = view.block.number - judge.PROOF_DEPTH
        if number < 0:
            return None
        block = await self.chain.block(number)
        crash("confirm.proof_read")
        return block

    async def _burnt_after(
        self, proof: Block | None, payments: Sequence[BoundPayment], facts: Mapping[str, Facts]
    ) -> set[str]:
        """Those that were burnt in blocks that may still be taken back, and the burn with them."""
        burnt = [payment for payment in payments if facts[payment.id].fate is Fate.BURNT]
        if proof is None or not burnt:
            return set()
        pairs = [(payment.payer, payment.id) for payment in burnt]
        states = await self.chain.authorizations_spent(pairs, proof.number)
        return {payment.id for payment, spent in zip(burnt, states, strict=True) if not spent}

    async def overdue(self, view: View, now_ms: int) -> None:
        """Put what was bound too long ago on the list for review."""
        timeout_s = self.live.now.confirmation_timeout_s
        reason = f"not confirmed within {timeout_s} s"
        outcomes = []
        for held in view.lanes:
            outcome = Outcome(view.block, held.lease)
            for payment in await self._overdue_of(held.lane.address, now_ms - timeout_s * 1000):
                outcome.verdicts.add(payment, Judgement(Step.GIVE_UP, reason=reason))
            outcomes.append(outcome)
        await self.record.write(outcomes)

    async def _overdue_of(self, lane: str, before_ms: int) -> list[BoundPayment]:
        """What travels in transactions made before; a lane makes them in the order of nonces."""
        found: list[BoundPayment] = []
        start = self._next_nonce.pop(lane, 0)
        for _ in range(_MAX_PAGES):
            page, payments = await self.ledger.read(
                partial(_made_before, lane=lane, first_nonce=start, before_ms=before_ms)
            )
            found += payments
            if len(page) < _PAGE:
                return found
            start = page[-1].nonce + 1
        self._next_nonce[lane] = start
        return found


def _made_before(
    connection: Connection, *, lane: str, first_nonce: int, before_ms: int
) -> tuple[Sequence[OpenTransaction], list[BoundPayment]]:
    page = under_way.open_transactions_between(connection, lane, first_nonce, _NO_END, _PAGE)
    old = [item for item in page if item.created_at_ms < before_ms]
    payments = under_way.unsettled(connection, [item.id for item in old]) if old else {}
    travelling = [
        payment
        for part in payments.values()
        for payment in part
        if payment.state in judge.TRAVELLING
    ]
    return old, travelling
