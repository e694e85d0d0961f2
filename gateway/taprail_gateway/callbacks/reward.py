"""The handler of `reward` rows: puts a completed payment's reward into the queue of mints.

It does nothing outside the ledger. Minting is the rewards lanes' business (`settle.rewards`).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from taprail_common.payment_state import PaymentState
from taprail_gateway.callbacks.handlers import Work
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import mints
from taprail_gateway.ledger.outbox import Callback


class RewardHandler:
    """Rewards payments at the configured rate."""

    states: Collection[PaymentState] = (PaymentState.COMPLETED,)
    at_once: int = 100
    """All of a batch, so that they share commits."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._rate = settings.rewards.fraction

    async def handle(self, callback: Callback) -> Work:
        """The mint is written in the commit that finishes the row."""
        return partial(
            mints.enqueue,
            payment_id=callback.payment_id,
            rate=self._rate,
            at_ms=callback.created_at_ms,
        )
