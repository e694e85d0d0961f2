"""Writes judgements into the ledger: a commit for each lane, with the balances that belong to it.

Every commit checks the lane's lease. A lane that turns out to be another gateway's is let go; the
others are written all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.payment_state import PaymentEvent
from taprail_gateway.ledger import alerts, leases, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease, LeaseLostError
from taprail_gateway.ledger.standings import REORG_ALERT
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.judge import Step, Verdicts
from taprail_gateway.settle.lane_keeper import LaneKeeper
from taprail_gateway.settle.replies import Block
from taprail_gateway.wakeups import Wakeups

_EVENTS: Final = {
    Step.UNBIND: PaymentEvent.UNBIND,
    Step.GIVE_UP: PaymentEvent.GIVE_UP,
    Step.RETRY: PaymentEvent.RETRY,
    Step.DISPROVE: PaymentEvent.DISPROVE,
    Step.REJECT: PaymentEvent.REJECT,
}
# What goes round again shows its reason in its history alone.
_KEEP_NO_REASON: Final = frozenset({PaymentEvent.UNBIND, PaymentEvent.RETRY})

_log = structlog.get_logger("settle.record")


@dataclass
class Outcome:
    """What one commit writes: judgements at a block, and the transactions that are done with."""

    block: Block
    lease: Lease
    verdicts: Verdicts = field(default_factory=Verdicts)
    finished: list[int] = field(default_factory=list)
    final_time_s: int = 0
    """Of the block that proves what is rejected."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.verdicts.confirmed or self.verdicts.others or self.finished)


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes for the confirmer, and rings the bells of those who wait for it."""

    ledger: Ledger
    chain: Chain
    clock: Clock
    wakeups: Wakeups
    keeper: LaneKeeper

    async def write(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Commit outcomes of one block; a hold is given back with the balance that it left.

        Gives the accounts whose balances were written. Raises the first error when all have had
        their turn.
        """
        wanted = [outcome for outcome in outcomes if not outcome.is_empty]
        if not wanted:
            return set()
        balances: dict[str, int] = {}
        if payers := {payer for outcome in wanted for payer in outcome.verdicts.payers}:
            balances = await self.chain.balances(sorted(payers), wanted[0].block.number)
            crash("confirm.balances_read")
        # Together, so that they share one sync to the disk.
        done = await asyncio.gather(
            *(self._commit(outcome, balances) for outcome in wanted), return_exceptions=True
        )
        self.wakeups.events.ring()
        self.wakeups.callbacks.ring()
        # There is room in a lane again, and perhaps payments came back.
        self.wakeups.pending.ring()
        refreshed: set[str] = set()
        for each in done:
            if isinstance(each, BaseException):
                raise each
            refreshed |= each
        return refreshed

    async def _commit(self, outcome: Outcome, balances: Mapping[str, int]) -> set[str]:
        work = partial(_store, outcome, balances, self.clock.now_ms())
        try:
            await self.ledger.write(work)
        except LeaseLostError:
            self.keeper.lose(outcome.lease.lane)
            return set()
        if outcome.verdicts.confirmed:
            crash("settle.completed")
        if outcome.verdicts.others:
            crash("confirm.judged")
        _tell(outcome)
        return outcome.verdicts.payers


def _store(
    outcome: Outcome, balances: Mapping[str, int], at_ms: int, connection: Connection
) -> None:
    leases.guard(connection, outcome.lease)
    block, verdicts = outcome.block, outcome.verdicts
    own = {payer: balances[payer] for payer in verdicts.payers}
    transitions.complete(connection, verdicts.confirmed, own, block.number, at_ms)
    paid = [item.payment_id for item in verdicts.confirmed]
    alerts.clear_alerts(connection, REORG_ALERT, paid, at_ms)
    for step, by_reason in verdicts.others.items():
        for reason, payment_ids in by_reason.items():
            _take(connection, _EVENTS[step], payment_ids, at_ms, reason, outcome.final_time_s)
    transitions.finish_transactions(connection, outcome.finished, block.number, block.block_hash)


def _take(
    connection: Connection,
    event: PaymentEvent,
    payment_ids: list[str],
    at_ms: int,
    reason: str,
    final_time_s: int,
) -> None:
    changes = transitions.Changes()
    if event not in _KEEP_NO_REASON:
        changes["failure_reason"] = reason
    transitions.apply(
        connection,
        event,
        payment_ids,
        at_ms,
        detail=reason,
        final_time_s=final_time_s,
        **changes,
    )


def _tell(outcome: Outcome) -> None:
    verdicts, block = outcome.verdicts, outcome.block.number
    if verdicts.confirmed:
        _log.info(
            "settle.completed",
            payments=len(verdicts.confirmed),
            txs=sorted({item.tx_hash for item in verdicts.confirmed})[:_SHOWN],
            block=block,
        )
    for step, by_reason in verdicts.others.items():
        for reason, payment_ids in by_reason.items():
            _log.warning(
                f"settle.{_EVENTS[step]}",
                payments=payment_ids[:_SHOWN],
                count=len(payment_ids),
                reason=reason,
                block=block,
            )


_SHOWN: Final = 20
"""Hashes or ids in one line of the log."""
