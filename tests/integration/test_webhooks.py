"""Webhooks on a real ledger, posted to a real server that checks them by the standard's library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import select
from standardwebhooks import Webhook, WebhookVerificationError

from taprail_common.errors import InputError, OperatorError
from taprail_common.payment_state import PaymentEvent
from taprail_gateway.callbacks import webhook
from taprail_gateway.callbacks.dispatcher import Dispatcher
from taprail_gateway.callbacks.kinds import callback_lines
from taprail_gateway.callbacks.line import BATCH, Line
from taprail_gateway.callbacks.outside import Outside
from taprail_gateway.callbacks.webhook import DeliveryQueue, DeliverySender, WebhookHandler
from taprail_gateway.config import GatewaySettings
from taprail_gateway.custody import Custody, create_master_key
from taprail_gateway.ledger import alerts, outbox, transitions, webhooks
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.schema_webhooks import webhook_deliveries
from taprail_gateway.wakeups import Wakeups
from tests.support.ledger_fixtures import NOW_MS, Registry, on_both_engines, seed_registry
from tests.support.ledger_payments import accepted, bound, completed, confirm
from tests.support.manual_clock import ManualClock

HERE = "127.0.0.1"
WAIT_S = 20
HOUR_S = 3_600
CHAIN = {"rpc_urls": ["http://127.0.0.1:9"], "chain_id": 1, "token": "0x" + "ab" * 20}
SETTINGS = GatewaySettings.model_validate({"chain": CHAIN})


@dataclass
class Receiver:
    """A merchant's server."""

    status: int = 204
    hangs: asyncio.Event | None = None
    """Answers only once this is set."""
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    told: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.told.append((headers, await request.read()))
        self.heard.set()
        if self.hangs is not None:
            await self.hangs.wait()
        return web.Response(status=self.status)

    def events(self) -> list[tuple[str, str]]:
        """Type and payment of each, in order of arrival."""
        read = [json.loads(body) for _, body in self.told]
        return [(each["type"], each["data"]["id"]) for each in read]


@dataclass
class Office:
    """A ledger whose merchant has an endpoint, and a dispatcher that the test turns."""

    ledger: Ledger
    registry: Registry
    clock: ManualClock
    custody: Custody
    url: str
    receiver: Receiver
    dispatcher: Dispatcher
    wakeups: Wakeups
    other_url: str
    other: Receiver
    """Another merchant's server, which is told the same here."""

    def add(self, url: str | None = None) -> tuple[str, str]:
        """One more endpoint: its id and its secret."""
        endpoint, secret = webhooks.new_endpoint_id(), webhook.new_secret()
        wrapped = self.custody.wrap_secret(webhook.secret_name(endpoint), secret)
        merchant, now_ms = self.registry.merchant_id, self.clock.now_ms()
        self.ledger.write_now(
            lambda c: webhooks.add_endpoint(c, endpoint, merchant, url or self.url, wrapped, now_ms)
        )
        return endpoint, webhook.secret_text(secret)

    async def turn(self) -> None:
        """First the callbacks, then what they have written."""
        await self.dispatcher.tick()

    def statuses(self) -> list[str]:
        d = webhook_deliveries.c
        found = self.ledger.read_now(lambda c: c.execute(select(d.status).order_by(d.id)).all())
        return [str(row.status) for row in found]


@pytest_asyncio.fixture
async def office(ledger: Ledger, tmp_path: Path) -> AsyncIterator[Office]:
    create_master_key(tmp_path / "webhook-master.key")
    custody = Custody.load(tmp_path / "webhook-master.key")
    clock, receiver, random = ManualClock(NOW_MS), Receiver(), Random(1)
    app = web.Application()
    other = Receiver()
    app.router.add_post("/hooks", receiver.answer)
    app.router.add_post("/other", other.answer)
    registry = seed_registry(ledger)
    ledger.write_now(partial(outbox.enable, wanted={"webhook": outbox.TOLD}))
    async with TestServer(app, host=HERE) as server, Outside([HERE]) as outside:
        sender = DeliverySender(ledger, custody, outside, clock)
        lines: list[Line[Any]] = [
            *callback_lines({"webhook": WebhookHandler(SETTINGS)}, ledger, clock, random),
            Line(DeliveryQueue(), sender, ledger, clock, random),
        ]
        wakeups = Wakeups()
        dispatcher = Dispatcher(ledger, lines, clock, wakeups, random)
        assert await dispatcher.take_lease()
        url, other_url = (str(server.make_url(path)) for path in ("/hooks", "/other"))
        yield Office(
            *(ledger, registry, clock, custody, url, receiver, dispatcher, wakeups),
            *(other_url, other),
        )


@on_both_engines
async def test_a_merchant_is_told_once_and_can_prove_by_whom(office: Office) -> None:
    endpoint, secret = office.add()
    ids = completed(office.ledger, office.registry, 3)
    await office.turn()
    await office.turn()
    assert sorted(office.receiver.events()) == sorted(("payment.completed", each) for each in ids)
    assert office.statuses() == ["done"] * 3
    for headers, body in office.receiver.told:
        message = {**headers, "webhook-timestamp": str(_now_s())}
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, message)  # the time is signed too
        assert headers["webhook-id"].startswith(f"msg_{endpoint}_")
        assert _signed_by(secret, headers, body)
        assert not _signed_by(webhook.secret_text(webhook.new_secret()), headers, body)
        assert not _signed_by(secret, headers, body + b" ")
    assert len({headers["webhook-id"] for headers, _ in office.receiver.told}) == 3


async def test_what_is_told_of_one_payment_comes_in_order(office: Office) -> None:
    office.add()
    office.receiver.status = 503
    [payment] = accepted(office.ledger, office.registry)
    bound(office.ledger, [payment])
    give_up = partial(
        transitions.apply, event=PaymentEvent.GIVE_UP, payment_ids=[payment], at_ms=NOW_MS
    )
    office.ledger.write_now(give_up)
    office.ledger.write_now(partial(confirm, registry=office.registry, payment_ids=[payment]))
    for _ in range(3):
        await office.turn()
    assert office.receiver.events() == [("payment.confirmation_failed", payment)]
    office.receiver.status = 200
    await office.clock.advance(webhook.BACKOFF.first_ms / 1000)
    for _ in range(2):
        await office.turn()
    assert office.receiver.events()[1:] == [
        ("payment.confirmation_failed", payment),
        ("payment.completed", payment),
    ]


async def test_a_repeat_has_the_same_id_and_the_same_body(office: Office) -> None:
    office.add()
    office.receiver.status = 500
    completed(office.ledger, office.registry)
    await office.turn()
    await office.turn()
    office.receiver.status = 200
    await office.clock.advance(webhook.BACKOFF.first_ms / 1000)
    await office.turn()
    (first, first_body), (again, again_body) = office.receiver.told
    assert first["webhook-id"] == again["webhook-id"]
    assert first_body == again_body


@on_both_engines
async def test_what_is_never_taken_is_given_up_with_an_alert_and_can_be_replayed(
    office: Office,
) -> None:
    endpoint, _ = office.add()
    office.receiver.status = 500
    [payment] = completed(office.ledger, office.registry)
    await office.turn()
    for _ in range(webhook.MAX_TRIES + 2):
        await office.turn()
        await office.clock.advance(webhook.BACKOFF.longest_ms / 1000)
    assert len(office.receiver.told) == webhook.MAX_TRIES
    assert office.statuses() == ["dead"]
    [alert] = office.ledger.read_now(lambda c: alerts.open_alerts(c, 10))
    assert (alert.kind, alert.subject) == (webhooks.DEAD_ALERT, endpoint)
    assert "answered 500" in alert.text

    office.receiver.status = 200
    now_ms = office.clock.now_ms()
    replay = partial(webhooks.replay, endpoint_id=endpoint, since_ms=NOW_MS, at_ms=now_ms)
    assert office.ledger.write_now(replay) == 1
    await office.turn()
    assert office.receiver.events()[-1] == ("payment.completed", payment)
    assert office.statuses() == ["done"]
    assert office.ledger.read_now(lambda c: alerts.open_alerts(c, 10)) == []
    assert office.ledger.write_now(replay) == 0


async def test_two_endpoints_do_not_wait_for_each_other(office: Office) -> None:
    office.add()
    office.add(office.url.replace("/hooks", "/nowhere"))
    completed(office.ledger, office.registry, 2)
    await office.turn()
    await office.turn()
    assert len(office.receiver.told) == 2
    assert sorted(office.statuses()) == ["done", "done", "waiting", "waiting"]


async def test_a_receiver_that_hangs_keeps_no_other_waiting(office: Office) -> None:
    office.add()
    office.add(office.other_url)
    office.receiver.hangs = asyncio.Event()
    (first,) = completed(office.ledger, office.registry)
    await office.dispatcher.start()
    try:
        async with asyncio.timeout(WAIT_S):
            await office.receiver.heard.wait()
            await office.other.heard.wait()
            for _ in range(webhooks.MAX_OF_ENDPOINT + 1):
                office.other.heard.clear()
                completed(office.ledger, office.registry)
                office.wakeups.callbacks.ring()
                await office.other.heard.wait()
            assert len(office.other.told) == webhooks.MAX_OF_ENDPOINT + 2
            assert len(office.receiver.told) == webhooks.MAX_OF_ENDPOINT, "it is sent no more"
            office.receiver.hangs.set()
            while len(office.receiver.told) < webhooks.MAX_OF_ENDPOINT + 2:
                office.receiver.heard.clear()
                await office.receiver.heard.wait()
    finally:
        office.receiver.hangs.set()
        await office.dispatcher.stop()
    told = [payment for _, payment in office.receiver.events()]
    assert told[0] == first
    assert len(set(told)) == len(told), "what is under way is not begun once more"


@on_both_engines
async def test_one_that_does_not_take_it_is_asked_by_one_at_a_time(office: Office) -> None:
    slow, _ = office.add()
    now_ms = office.clock.now_ms()
    tell = partial(webhooks.enqueue, endpoint_ids=[slow], event="e", body=b"{}", at_ms=now_ms)
    for number in range(6):
        office.ledger.write_now(partial(tell, about=f"0x{number:064x}"))
    look = partial(webhooks.due, now_ms=now_ms, limit=BATCH)
    before = office.ledger.read_now(look)
    assert len(before) == webhooks.MAX_OF_ENDPOINT
    office.ledger.write_now(
        partial(webhooks.put_off, delivery=before[0], due_at_ms=now_ms + 1, error="answered 500")
    )
    assert [each.id for each in office.ledger.read_now(look)] == [before[1].id]
    assert office.ledger.read_now(partial(webhooks.next_due_ms, after_ms=now_ms)) == now_ms + 1
    later = office.ledger.read_now(partial(look, now_ms=now_ms + 1))
    office.ledger.write_now(partial(webhooks.finish, delivery_ids=[before[0].id], at_ms=now_ms))
    assert len(later) == webhooks.MAX_OF_FAILING
    assert len(office.ledger.read_now(look)) == webhooks.MAX_OF_ENDPOINT, "it takes things again"


@on_both_engines
async def test_one_endpoint_with_much_to_be_told_does_not_take_the_room_of_others(
    office: Office,
) -> None:
    busy, _ = office.add()
    now_ms = office.clock.now_ms()
    for number in range(BATCH):
        about = f"0x{number:064x}"
        tell = partial(webhooks.enqueue, about=about, event="e", body=b"{}", at_ms=now_ms - 1)
        office.ledger.write_now(partial(tell, endpoint_ids=[busy]))
    other, _ = office.add(office.url.replace("/hooks", "/nowhere"))
    tell = partial(webhooks.enqueue, about="0x", event="e", body=b"{}", at_ms=now_ms)
    office.ledger.write_now(partial(tell, endpoint_ids=[other]))
    due = office.ledger.read_now(partial(webhooks.due, now_ms=now_ms, limit=BATCH))
    assert [each.endpoint_id for each in due] == [busy] * webhooks.MAX_OF_ENDPOINT + [other]


async def test_a_new_secret_signs_beside_the_old_one_for_a_day(office: Office) -> None:
    endpoint, old = office.add()
    secret = webhook.new_secret()
    wrapped = office.custody.wrap_secret(webhook.secret_name(endpoint), secret)
    until_ms = office.clock.now_ms() + webhook.OLD_SECRET_MS
    office.ledger.write_now(lambda c: webhooks.rotate(c, endpoint, wrapped, until_ms))
    completed(office.ledger, office.registry)
    await office.turn()
    await office.turn()
    [(headers, body)] = office.receiver.told
    assert _signed_by(old, headers, body)
    assert _signed_by(webhook.secret_text(secret), headers, body)
    await office.clock.advance(24 * HOUR_S)
    completed(office.ledger, office.registry)
    await office.turn()
    await office.turn()
    headers, body = office.receiver.told[-1]
    assert not _signed_by(old, headers, body)
    assert _signed_by(webhook.secret_text(secret), headers, body)


async def test_a_removed_endpoint_is_told_nothing(office: Office) -> None:
    endpoint, _ = office.add()
    office.receiver.status = 500
    completed(office.ledger, office.registry)
    await office.turn()
    await office.turn()
    remove = partial(webhooks.remove_endpoint, endpoint_id=endpoint, at_ms=office.clock.now_ms())
    office.ledger.write_now(remove)
    await office.clock.advance(24 * HOUR_S)
    completed(office.ledger, office.registry)
    await office.turn()
    await office.turn()
    assert len(office.receiver.told) == 1
    assert office.statuses() == ["dead"]
    with pytest.raises(OperatorError, match="no webhook"):
        office.ledger.read_now(partial(webhooks.endpoint, endpoint_id=endpoint))


async def test_a_merchant_has_so_many_endpoints_at_most(office: Office) -> None:
    for _ in range(webhooks.MAX_ENDPOINTS):
        office.add()
    with pytest.raises(InputError, match="remove one first"):
        office.add()


async def test_an_endpoint_in_our_own_network_is_not_connected_to(office: Office) -> None:
    office.add("https://127.0.0.2/hooks")
    completed(office.ledger, office.registry)
    await office.turn()
    await office.turn()
    d = webhook_deliveries.c
    said = office.ledger.read_now(lambda c: c.execute(select(d.last_error)).scalar_one())
    assert said == "url: is not on the public internet"


def _now_s() -> int:
    return ManualClock().now_ms() // 1000


def _signed_by(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Whether one of the signatures is by this secret, as the standard's library tells."""
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    expected = Webhook(secret).sign(headers["webhook-id"], at, body.decode())
    return expected in headers["webhook-signature"].split()
