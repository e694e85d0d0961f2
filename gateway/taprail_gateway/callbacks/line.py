"""One kind of callback and its handler: due rows in, and what came of them back into the ledger.

Kinds do not wait for each other, only rows of one kind and payment do. A row is handed on at least
once. A failure is written down with the time of the next try; after too many the row is dead, with
an alert. Whatever a handler does, the payment is not touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.errors import TapRailError
from taprail_gateway.backoff import Backoff
from taprail_gateway.callbacks.handlers import Handler, Work
from taprail_gateway.ledger import leases, outbox
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import Overloaded, StorageError
from taprail_gateway.ledger.leases import Lease, LeaseLostError
from taprail_gateway.ledger.outbox import Callback

BATCH: Final = 100
"""Rows read at once."""

MAX_TRIES: Final = 15
"""Of one row: with the waits below about an hour passes on average, and two at most."""

BACKOFF: Final = Backoff(first_ms=1_000, longest_ms=30 * 60_000)

HANDLE_TIMEOUT_S: Final = 30.0
"""For one row, so that what hangs becomes a failure."""

# Not the handler's fault: the row is as it was, and whoever looks next finds it so.
_OURS: Final = (LeaseLostError, StorageError, Overloaded)

_log = structlog.get_logger("callbacks")


@dataclass(frozen=True, slots=True)
class Handled:
    """A row whose handler is done with it."""

    lease: Lease
    callback: Callback
    work: Work
    at_ms: int


class Finisher:
    """Finishes rows, each together with its handler's work; many share a commit."""

    def run(self, connection: Connection, items: Sequence[Handled], /) -> list[None]:
        for lease in {item.lease.fence: item.lease for item in items}.values():
            leases.guard(connection, lease)
        outbox.finish(connection, [item.callback.id for item in items], items[0].at_ms)
        for item in items:
            item.work(connection)
        return [None] * len(items)


class Line:
    """The rows of one kind. `tick` hands on what is due now."""

    def __init__(
        self, kind: str, handler: Handler, ledger: Ledger, clock: Clock, random: Random
    ) -> None:
        self.kind = kind
        self._handler = handler
        self._ledger = ledger
        self._clock = clock
        self._random = random
        self._room = asyncio.Semaphore(handler.at_once)
        self._finisher = Finisher()

    async def tick(self, lease: Lease) -> int | None:
        """Hand on one batch; ms until there is more to do, None when nothing waits.

        Raises LeaseLostError, StorageError or Overloaded: nothing is lost by that.
        """
        now_ms = self._clock.now_ms()
        due = partial(outbox.due, kind=self.kind, now_ms=now_ms, limit=BATCH)
        batch = await self._ledger.read(due)
        done = await asyncio.gather(
            *(self._serve(lease, callback) for callback in batch), return_exceptions=True
        )
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome
        next_ms = await self._ledger.read(partial(outbox.next_due_ms, kind=self.kind))
        return None if next_ms is None else max(0, next_ms - self._clock.now_ms())

    async def _serve(self, lease: Lease, callback: Callback) -> None:
        async with self._room:
            failure = await self._try(lease, callback)
        if failure is not None:
            await self._note_failure(lease, callback, failure)

    async def _try(self, lease: Lease, callback: Callback) -> str | None:
        """Handle a row and finish it; why that failed, if it did."""
        try:
            async with asyncio.timeout(HANDLE_TIMEOUT_S):
                work = await self._handler.handle(callback)
            crash("callbacks.handled")
            handled = Handled(lease, callback, work, self._clock.now_ms())
            await self._ledger.write_batched(self._finisher, handled)
            crash("callbacks.finished")
        except _OURS:
            raise
        except TimeoutError:
            return f"not done within {HANDLE_TIMEOUT_S:.0f} s"
        except TapRailError as exc:
            return str(exc)
        except Exception as exc:  # noqa: BLE001 - a handler's bug is its own failure: noted, bounded
            _log.exception("callbacks.bug", kind=self.kind, payment=callback.payment_id)
            return f"an unforeseen error ({type(exc).__name__})"
        return None

    async def _note_failure(self, lease: Lease, callback: Callback, failure: str) -> None:
        tries, now_ms = callback.tries + 1, self._clock.now_ms()
        is_last = tries >= MAX_TRIES
        due_at_ms = now_ms + BACKOFF.wait_ms(tries, self._random)

        def note(connection: Connection) -> None:
            leases.guard(connection, lease)
            if is_last:
                outbox.bury(connection, callback, now_ms, failure)
            else:
                outbox.put_off(connection, callback, due_at_ms, failure)

        await self._ledger.write(note)
        crash("callbacks.put_off")
        _log.warning(
            "callbacks.given_up" if is_last else "callbacks.put_off",
            kind=self.kind,
            payment=callback.payment_id,
            tries=tries,
            reason=failure,
        )
