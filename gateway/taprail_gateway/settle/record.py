"""Writes judgements into the ledger: one commit each, with the balances that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.payment_state import PaymentEvent
from taprail_gateway.ledger import transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.judge import Step, Verdicts
from taprail_gateway.settle.replies import Block
from taprail_gateway.wakeups import Wakeups

_EVENTS: Final = {
    Step.UNBIND: PaymentEvent.UNBIND,
    Step.GIVE_UP: PaymentEvent.GIVE_UP,
    Step.RETRY: PaymentEvent.RETRY,
    Step.DISPROVE: PaymentEvent.DISPROVE,
}
_log = structlog.get_logger("settle.record")


@dataclass
class Outcome:
    """What one commit writes: judgements at a block, and the transactions that are done with."""

    block: Block
    verdicts: Verdicts = field(default_factory=Verdicts)
    finished: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes for the confirmer, and rings the bells of those who wait for it."""

    ledger: Ledger
    chain: Chain
    clock: Clock
    wakeups: Wakeups

    async def write(self, outcome: Outcome) -> None:
        """Commit an outcome; a hold is given back together with the balance that its block left."""
        verdicts = outcome.verdicts
        if not (verdicts.confirmed or verdicts.others or outcome.finished):
            return
        balances = await self.chain.balances(sorted(verdicts.payers), outcome.block.number)
        await self.ledger.write(partial(_store, outcome, balances, self.clock.now_ms()))
        if verdicts.confirmed:
            crash("settle.completed")
        _tell(outcome)
        self.wakeups.events.ring()
        # There is room in the lane again, and perhaps payments came back.
        self.wakeups.pending.ring()


def _store(
    outcome: Outcome, balances: Mapping[str, int], at_ms: int, connection: Connection
) -> None:
    block, verdicts = outcome.block, outcome.verdicts
    transitions.complete(connection, verdicts.confirmed, balances, block.number, at_ms)
    for step, by_reason in verdicts.others.items():
        for reason, payment_ids in by_reason.items():
            _take(connection, step, payment_ids, at_ms, reason)
    for transaction in outcome.finished:
        transitions.finish_transaction(connection, transaction, block.number, block.block_hash)


def _take(
    connection: Connection, step: Step, payment_ids: list[str], at_ms: int, reason: str
) -> None:
    event = _EVENTS[step]
    if event in {PaymentEvent.UNBIND, PaymentEvent.RETRY}:
        transitions.apply(connection, event, payment_ids, at_ms, detail=reason)
    else:
        transitions.apply(
            connection, event, payment_ids, at_ms, detail=reason, failure_reason=reason
        )


def _tell(outcome: Outcome) -> None:
    verdicts, block = outcome.verdicts, outcome.block.number
    if verdicts.confirmed:
        _log.info(
            "settle.completed",
            payments=len(verdicts.confirmed),
            txs=sorted({item.tx_hash for item in verdicts.confirmed}),
            block=block,
        )
    for step, by_reason in verdicts.others.items():
        for reason, payment_ids in by_reason.items():
            _log.warning(
                f"settle.{_EVENTS[step]}", payments=payment_ids, reason=reason, block=block
            )
