"""Bells between the gateway's loops: they save a wait, they carry no state.

Whoever is woken looks into the ledger for what there is to do. A bell that nobody rang costs one
interval, never a payment, because every loop also looks by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Wakeups:
    """Each is set after the commit that it tells of, and cleared by the loop that waits for it."""

    pending: asyncio.Event = field(default_factory=asyncio.Event)
    """Payments were accepted, or came back to be sent again."""
    bound: asyncio.Event = field(default_factory=asyncio.Event)
    """Transactions were sent: their block is worth watching for."""
    events: asyncio.Event = field(default_factory=asyncio.Event)
    """Rows were written to payment_events."""


async def wait_until_rung(bell: asyncio.Event, timeout_ms: float) -> None:
    """Return when the bell rings, and clear it; or after the time-out."""
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            await bell.wait()
    except TimeoutError:
        return
    bell.clear()
