"""Bells between the gateway's loops: they save a wait, they carry no state.

Whoever is woken looks into the ledger for what there is to do. A bell that nobody rang costs one
interval, never a payment, because every loop also looks by itself.
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass, field


class Listener:
    """One loop's ear: it remembers a ring until the loop has heard it."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the loop that waits, or the one that will."""
        self._rung.set()

    @property
    def was_rung(self) -> bool:
        """Whether a ring has not been heard yet."""
        return self._rung.is_set()

    def clear(self) -> None:
        """Forget what was rung: before looking, so that what comes meanwhile rings again."""
        self._rung.clear()

    async def wait(self, timeout_ms: float | None = None) -> None:
        """Return when the bell rings, and forget it; or after the time-out."""
        try:
            async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
                await self._rung.wait()
        except TimeoutError:
            return
        self._rung.clear()


class Bell:
    """Wakes everyone who listens; a listener that is gone is forgotten."""

    def __init__(self) -> None:
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()

    def listen(self) -> Listener:
        """An ear of one's own, for as long as it is kept."""
        listener = Listener()
        self._listeners.add(listener)
        return listener

    def ring(self) -> None:
        """Wake all listeners."""
        for listener in self._listeners:
            listener.ring()


@dataclass(frozen=True, slots=True)
class Wakeups:
    """Each is rung after the commit that it tells of."""

    pending: Bell = field(default_factory=Bell)
    """Payments were accepted, or came back to be sent again, or there is room for more."""
    bound: Bell = field(default_factory=Bell)
    """Transactions were sent: their block is worth watching for."""
    events: Bell = field(default_factory=Bell)
    """Rows were written to payment_events."""
    charges: Bell = field(default_factory=Bell)
    """Tills asked for something, or it came to an end."""
    access: Bell = field(default_factory=Bell)
    """Somebody may no longer do what they could: a terminal was revoked, a user frozen."""
    fleet: Bell = field(default_factory=Bell)
    """Something is wanted of a terminal, or one has told what it has found."""
    callbacks: Bell = field(default_factory=Bell)
    """Rows may have been written to the outbox."""
