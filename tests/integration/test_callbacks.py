"""The dispatcher on a real ledger: order, retries, dead letters, one gateway at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection, insert, select

from taprail_common.errors import TapRailError
from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_gateway.callbacks import line
from taprail_gateway.callbacks.dispatcher import Dispatcher
from taprail_gateway.callbacks.handlers import CallbackHandler, Work
from taprail_gateway.callbacks.kinds import callback_lines
from taprail_gateway.callbacks.kinds import dispatching as dispatching_for
from taprail_gateway.config import GatewaySettings
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import alerts, leases, outbox, queries, schema, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.outbox import Callback
from taprail_gateway.master_keys import KeyRing
from taprail_gateway.wakeups import Wakeups
from tests.support.ledger_fixtures import NOW_MS, Registry, on_postgres, seed_registry
from tests.support.ledger_payments import accepted, bound, completed, confirm
from tests.support.manual_clock import ManualClock

WAIT_S = 10
KIND = "bell"


class RefusedError(TapRailError):
    """What a handler says when it could not tell."""

    code = "refused"


@dataclass
class Bell:
    """A handler that tells nobody and notes each callback in the ledger, in its own commit."""

    states: Collection[PaymentState] = outbox.TOLD
    at_once: int = 4
    failures: int = 0
    """How many times to fail before doing it."""
    error: Callable[[], Exception] = lambda: RefusedError("not now")
    calls: list[tuple[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    told: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: int = 0

    async def handle(self, callback: Callback) -> Work:
        self._busy += 1
        self.most_at_once = max(self.most_at_once, self._busy)
        await asyncio.sleep(0)
        self._busy -= 1
        self.calls.append((callback.payment_id, callback.state))
        if self.failures:
            self.failures -= 1
            raise self.error()
        self.told.set()
        return partial(note, callback=callback)


def note(connection: Connection, *, callback: Callback) -> None:
    key = f"{callback.payment_id[:40]}:{callback.state}"
    connection.execute(insert(schema.meta).values(key=key, value="told"))


def noted(ledger: Ledger) -> int:
    told = select(schema.meta.c.key).where(schema.meta.c.value == "told")
    return len(ledger.read_now(lambda c: c.execute(told).all()))


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    registry = seed_registry(ledger)
    ledger.write_now(partial(outbox.enable, wanted={KIND: outbox.TOLD}))
    return registry


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


def dispatcher(ledger: Ledger, clock: ManualClock, **handlers: CallbackHandler) -> Dispatcher:
    lines = callback_lines(handlers, ledger, clock, Random(2))
    return Dispatcher(ledger, lines, clock, Wakeups(), Random(1))


async def dispatching(
    ledger: Ledger, clock: ManualClock, **handlers: CallbackHandler
) -> Dispatcher:
    made = dispatcher(ledger, clock, **handlers)
    assert await made.take_lease()
    return made


def rows(ledger: Ledger) -> list[dict[str, Any]]:
    table = schema.callbacks
    found = ledger.read_now(lambda c: c.execute(select(table).order_by(table.c.id)).all())
    return [dict(row._mapping) for row in found]


def statuses(ledger: Ledger) -> list[str]:
    return [row["status"] for row in rows(ledger)]


# --- handing on ---------------------------------------------------------------------------------


async def test_every_row_is_handed_on_once(
    ledger: Ledger, registry: Registry, clock: ManualClock
) -> None:
    ids = completed(ledger, registry, 30)
    bell = Bell()
    made = await dispatching(ledger, clock, bell=bell)
    await made.tick()
    await made.tick()
    assert sorted(bell.calls) == sorted((each, "completed") for each in ids)
    assert set(statuses(ledger)) == {"done"}
    assert noted(ledger) == 30
    assert bell.most_at_once == bell.at_once


async def test_more_than_a_batch_takes_more_than_a_step(
    ledger: Ledger, registry: Registry, clock: ManualClock
) -> None:
    completed(ledger, registry, line.BATCH + 1)
    bell = Bell()
    made = await dispatching(ledger, clock, bell=bell)
    await made.tick()
    assert len(bell.calls) == line.BATCH
    await made.tick()
    assert len(bell.calls) == line.BATCH + 1


async def test_what_is_told_of_one_payment_comes_in_order(
    ledger: Ledger, registry: Registry, clock: ManualClock
) -> None:
    [payment] = accepted(ledger, registry)
    bound(ledger, [payment])
    give_up = partial(
        transitions.apply, event=PaymentEvent.GIVE_UP, payment_ids=[payment], at_ms=NOW_MS
    )
    ledger.write_now(give_up)
    ledger.write_now(partial(confirm, registry=registry, payment_ids=[payment]))
    bell = Bell(failures=1)
    made = await dispatching(ledger, clock, bell=bell)
    await made.tick()
    await made.tick()
    assert bell.calls == [(payment, "confirmation_failed")], "the later one must wait"
    await clock.advance(outbox.BACKOFF.first_ms / 1000)
    await made.tick()
    await made.tick()
    assert [state for _, state in bell.calls[1:]] == ["confirmation_failed", "completed"]


async def test_it_wakes_by_the_bell_and_stops(
    ledger: Ledger, registry: Registry, clock: ManualClock
) -> None:
    wakeups, bell = Wakeups(), Bell()
    lines = callback_lines({KIND: bell}, ledger, clock, Random(2))
    made = Dispatcher(ledger, lines, clock, wakeups, Random(1))
    await made.start()
    completed(ledger, registry)
    wakeups.callbacks.ring()
    async with asyncio.timeout(WAIT_S):
        await bell.told.wait()
    await made.stop()
    assert not made.is_ours
    lease = await ledger.write(lambda c: leases.acquire(c, "callbacks", "next", NOW_MS))
    assert lease is not None, "it was given back"


async def test_only_what_is_configured_is_asked_for(ledger: Ledger, registry: Registry) -> None:
    chain = {"rpc_urls": ["http://127.0.0.1:9"], "chain_id": 1, "token": "0x" + "ab" * 20}
    off = GatewaySettings.model_validate({"chain": chain})
    rewards = {"contract": "0x" + "cd" * 20, "rate": "1/100"}
    on = GatewaySettings.model_validate(
        {"chain": chain, "rewards": rewards, "webhooks": {"enabled": True}}
    )
    for settings in (on, off):
        async with dispatching_for(
            settings, ledger, Custody(KeyRing(bytes(32))), ManualClock(), Wakeups()
        ):
            completed(ledger, registry)
    assert sorted(row["kind"] for row in rows(ledger)) == ["reward", "webhook"]


# --- failures -----------------------------------------------------------------------------------


async def test_a_failure_is_tried_again_ever_later_and_touches_no_payment(
    ledger: Ledger, registry: Registry, clock: ManualClock
) -> None:
    [payment] = completed(ledger, registry)
    before = ledger.read_now(lambda c: queries.payment(c, payment))
    bell = Bell(failures=3)
    made = await dispatching(ledger, clock, bell=bell)
    for tries in (1, 2, 3):
        await made.tick()
        [row] = rows(ledger)
        assert (row["status"], row["tries"], row["last_error"]) == ("waiting", tries, "not now")
        wait_ms = row["due_at_ms"] - clock.now_ms()
        assert 0 < wait_ms <= outbox.BACKOFF.first_ms * 2 ** (tries - 1)
        await made.tick()
        assert len(bell.calls) == tries, "not before it is due"
        await clock.advance(wait_ms / 1000)
    await made.tick()
    assert statuses(ledger) == ["done"]
    assert noted(ledger) == 1
    assert ledger.read_now(lambda c: queries.payment(c, payment)) == before
    assert ledger.read_now(queries.check_invariants) == []


async def test_after_too_many_tries_it_is_dead_with_an_alert(
    ledger: Ledger, registry: Registry, clock: ManualClock
) -> None:
    [payment] = completed(ledger, registry)
    bell = Bell(failures=1_000, error=lambda: ValueError("a bug"))
    made = await dispatching(ledger, clock, bell=bell)
    for _ in range(outbox.MAX_TRIES + 3):
        await made.take_lease()
        await made.tick()
        await clock.advance(outbox.BACKOFF.longest_ms / 1000)
    assert len(bell.calls) == outbox.MAX_TRIES
    [row] = rows(ledger)
    assert (row["status"], row["tries"]) == ("dead", outbox.MAX_TRIES)
    [alert] = ledger.read_now(alerts.open_alerts)
    assert (alert.subject, alert.needs_review) == (f"{KIND}:{payment}", True)
    assert "ValueError" in alert.text


async def test_one_that_fails_takes_no_other_along(
    ledger: Ledger, registry: Registry, clock: ManualClock
) -> None:
    completed(ledger, registry, 10)
    made = await dispatching(ledger, clock, bell=Bell(failures=1))
    await made.tick()
    assert sorted(statuses(ledger)) == ["done"] * 9 + ["waiting"]


async def test_work_that_fails_in_the_ledger_is_the_handlers_failure(
    ledger: Ledger, registry: Registry, clock: ManualClock
) -> None:
    ids = completed(ledger, registry, 5)
    # The handler's note of this one is there already, so that its work breaks a constraint.
    taken = f"{ids[2][:40]}:completed"
    ledger.write_now(lambda c: c.execute(insert(schema.meta).values(key=taken, value="taken")))
    made = await dispatching(ledger, clock, bell=Bell())
    await made.tick()
    assert statuses(ledger) == ["done", "done", "waiting", "done", "done"]
    assert noted(ledger) == 4
    assert "unforeseen" in rows(ledger)[2]["last_error"]


async def test_a_kind_that_fails_holds_up_no_other(
    ledger: Ledger, registry: Registry, clock: ManualClock
) -> None:
    wanted = {"bell": [PaymentState.COMPLETED], "horn": [PaymentState.COMPLETED]}
    ledger.write_now(partial(outbox.enable, wanted=wanted))
    completed(ledger, registry, 3)
    horn = Bell(failures=1_000)
    made = await dispatching(ledger, clock, horn=horn, bell=Bell())
    await made.tick()
    by_kind = {(row["kind"], row["status"]) for row in rows(ledger)}
    assert by_kind == {("bell", "done"), ("horn", "waiting")}


# --- one gateway at a time ----------------------------------------------------------------------


async def test_a_new_process_on_a_file_dispatches_at_once(
    ledger: Ledger, registry: Registry, clock: ManualClock
) -> None:
    completed(ledger, registry, 2)
    old_bell, new_bell = Bell(), Bell()
    old = await dispatching(ledger, clock, bell=old_bell)
    new = await dispatching(ledger, clock, bell=new_bell)
    await old.tick()
    assert not old.is_ours
    assert set(statuses(ledger)) == {"waiting"}, "what it did outside it could not write down"
    await new.tick()
    assert len(new_bell.calls) == 2
    assert set(statuses(ledger)) == {"done"}
    await old.tick()
    assert len(old_bell.calls) == 2, "it knows better now"


@pytest_asyncio.fixture
async def second(ledger: Ledger, ledger_url: str, clock: ManualClock) -> AsyncIterator[Ledger]:
    """Another gateway's ledger on the same rows."""
    opened = Ledger.open(ledger_url, clock=clock)
    await opened.start()
    yield opened
    await opened.close()


@on_postgres
async def test_of_two_gateways_one_dispatches_until_it_gives_way(
    ledger: Ledger, second: Ledger, registry: Registry, clock: ManualClock
) -> None:
    completed(ledger, registry, 20)
    bells = [Bell(), Bell()]
    first, other = (
        dispatcher(each, clock, bell=bell)
        for each, bell in zip((ledger, second), bells, strict=True)
    )
    assert [await first.take_lease(), await other.take_lease()] == [True, False]
    await asyncio.gather(first.tick(), other.tick())
    assert [len(bell.calls) for bell in bells] == [20, 0]
    completed(ledger, registry, 5)
    await first.stop()
    assert await other.take_lease()
    await asyncio.gather(first.tick(), other.tick())
    assert [len(bell.calls) for bell in bells] == [20, 5]
    assert set(statuses(ledger)) == {"done"}
