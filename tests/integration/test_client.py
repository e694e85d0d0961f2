"""The typed client: against a real gateway, and against one that falters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from taprail_common.api.charges import ChargeOrder
from taprail_common.api.office import CardChange, UserChange
from taprail_common.api.payments import PaymentQuery, RefundRequest
from taprail_common.client.errors import (
    ConflictError,
    DeclinedError,
    GatewayFaultError,
    NotAllowedError,
    NotIdentifiedError,
    NotThereError,
    NotYetError,
    OutcomeUnknownError,
    RequestError,
    TooManyError,
)
from taprail_common.client.exchange import Bounds, NotSentError
from taprail_common.client.gateway import GatewayClient, bearer
from taprail_common.errors import LinkError
from taprail_common.ids import new_id
from taprail_common.payment_state import PaymentEvent, PaymentState
from taprail_common.wire import AppPayment
from taprail_gateway.ledger import floats, transitions
from tests.support.gateway_fixtures import (
    MERCHANT,
    TERMINAL,
    UNIT,
    TestCard,
    TestGateway,
    running_gateway,
)
from tests.support.push_clients import complete, send

FLOAT = "0x" + "f1" * 20


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


def client(gateway: TestGateway, user: str) -> GatewayClient:
    return GatewayClient(gateway.url, bearer(gateway.token(user)))


def order(card: TestCard, amount: int = 3 * UNIT) -> AppPayment:
    return AppPayment(
        card_uuid=card.issued.card_uuid, amount=amount, merchant_id=MERCHANT, terminal_id=TERMINAL
    )


# --- against a real gateway -----------------------------------------------------------------------


async def test_a_customer_pays_and_a_merchant_gives_it_back(gateway: TestGateway) -> None:
    card = gateway.card()
    gateway.ledger.write_now(lambda c: floats.open_float(c, MERCHANT, FLOAT, b"\1", 1))
    async with client(gateway, "alice") as alice, client(gateway, "bob") as bob:
        paid = await alice.pay(order(card), key="order-7")
        assert (await alice.pay(order(card), key="order-7")).transaction_id == paid.transaction_id
        with pytest.raises(ConflictError, match="use a new key") as reused:
            await alice.pay(order(card, 1), key="order-7")
        assert (reused.value.code, reused.value.status) == ("request_id_reused", 409)
        with pytest.raises(NotYetError):
            await alice.settled(paid.transaction_id, timeout_s=0.01)
        await send(gateway, paid.transaction_id)
        waiting = asyncio.create_task(alice.settled(paid.transaction_id))
        await complete(gateway, paid.transaction_id, card.issued.account)
        assert (await waiting).status is PaymentState.COMPLETED
        refund = await bob.refund(paid.transaction_id, RefundRequest(amount=UNIT))
        assert refund.refund_of == paid.transaction_id
        sale = await bob.payment(paid.transaction_id)
        assert [each.id for each in sale.refunds or []] == [refund.transaction_id]
        with pytest.raises(ConflictError) as too_much:
            await bob.refund(paid.transaction_id, RefundRequest(amount=3 * UNIT))
        assert (too_much.value.code, too_much.value.field) == ("refund_too_high", "amount")
        listed = await bob.payments(PaymentQuery(status=PaymentState.COMPLETED, limit=5))
        assert [each.id for each in listed.payments] == [paid.transaction_id]
        lines = b"".join([piece async for piece in bob.payments_csv()]).decode().splitlines()
        assert len(lines) == 3
        assert paid.transaction_id in lines[1] + lines[2]


async def test_each_refusal_is_an_error_of_its_kind(gateway: TestGateway) -> None:
    card, poor = gateway.card(), gateway.card("04AABBCCDDEE02", balance_units=1)
    async with client(gateway, "alice") as alice, client(gateway, "mallory") as mallory:
        with pytest.raises(DeclinedError, match="Insufficient balance: top the card up") as no:
            await alice.pay(order(poor))
        assert no.value.verdict.reason_code == "insufficient_balance"
        paid = await alice.pay(order(card))
        with pytest.raises(NotThereError):
            await mallory.payment(paid.transaction_id)
        with pytest.raises(NotAllowedError, match="card of the token's own user"):
            await mallory.pay(order(card))
        with pytest.raises(NotAllowedError, match="scope that is named"):
            await alice.settings()
        with pytest.raises(RequestError, match="correct the field") as bad:
            await alice.payments(PaymentQuery.model_construct(cursor="x", _fields_set={"cursor"}))
        assert bad.value.field == "cursor"
    async with GatewayClient(gateway.url, bearer("nonsense")) as nobody:
        with pytest.raises(NotIdentifiedError, match="get a new token"):
            await nobody.queue_status()


async def test_a_till_charges_and_operators_look_after_it(gateway: TestGateway) -> None:
    card = gateway.card()
    async with client(gateway, "bob") as till, client(gateway, "olga") as olga:
        asked = ChargeOrder(amount=UNIT, currency="TUSD", reference=new_id("order"))
        charge = await till.charge(TERMINAL, asked)
        with pytest.raises(ConflictError, match="wait for the terminal's charge to end") as busy:
            await till.charge(TERMINAL, asked.model_copy(update={"reference": "other"}))
        assert busy.value.code == "terminal_busy"
        await gateway.pay(card, amount=UNIT, chargeId=charge.charge_id)
        ended = await till.charged(TERMINAL, charge.charge_id)
        assert (ended.status, ended.payment is not None) == ("approved", True)
        assert (await till.cancel(TERMINAL, charge.charge_id)).won == "tap"
        assert (await till.display(TERMINAL, "Back at two")).text == "Back at two"
        assert (await olga.queue_status()).queues.payment.waiting == 1
        assert (await till.ws_status()).websocket.status == "active"
        cards = (await olga.cards()).cards
        assert [each.uuid for each in cards] == [card.issued.card_uuid]
        frozen = await olga.change_card(cards[0].uuid, CardChange(status="frozen"))
        assert (frozen.card.status, frozen.card.created_at) == ("frozen", cards[0].created_at)
        assert (await olga.users()).users[0].id == "alice"
        locked = await olga.change_user("alice", UserChange(status="frozen", reason="lost phone"))
        assert locked.user.status == "frozen"
        changed = await olga.change_settings({"payment_batch_size": 7}, "a test")
        assert changed.settings["payment_batch_size"] == 7
        assert (await olga.terminals()).terminals[0].merchant_id == MERCHANT
        assert (await olga.merchants()).merchants[0].id == MERCHANT
        stuck = (await olga.payments()).payments[0].id
        with pytest.raises(ConflictError):
            await olga.retry(stuck)
        assert (await olga.reset_stuck(0)).payments == 0
        assert (await olga.alerts(review=True)).alerts == []


async def test_a_payment_that_fails_is_an_end_too(gateway: TestGateway) -> None:
    async with client(gateway, "alice") as alice:
        paid = await alice.pay(order(gateway.card()))
        reject = partial(transitions.apply, event=PaymentEvent.REJECT, at_ms=gateway.now_ms())
        gateway.ledger.write_now(partial(reject, payment_ids=[paid.transaction_id]))
        assert (await alice.settled(paid.transaction_id)).status is PaymentState.FAILED


# --- against one that falters ---------------------------------------------------------------------

PAID = {
    "success": True,
    "verdict": "approved",
    "transactionId": "0x1",
    "status": "pending",
    "message": "m",
    "processingTime": 1,
    "requestId": "r",
    "terminalId": "t",
    "amount": 1,
    "currency": "TUSD",
    "queueJobId": "q",
    "authCode": "A",
    "estimateBasis": "recent",
    "estimatedProcessingTime": "2-5 seconds",
    "statusUrl": "/",
    "websocketChannel": "c",
    "gatewayTime": "2026-01-01T00:00:00Z",
}
RESET = {"success": True, "payments": 0, "transactions": 0}
Play = Callable[[web.Request], web.StreamResponse]


def problem(status: int, code: str, **headers: str) -> Play:
    body = {"success": False, "error": "no", "reasonCode": code, "requestId": "req_9"}
    return lambda _request: web.json_response(body, status=status, headers=headers)


def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


class Faltering:
    """Plays what it is told, then answers as it should."""

    def __init__(self, *plays: Play) -> None:
        self.plays = list(plays)
        self.keys: list[str | None] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers.get("Idempotency-Key"))
        if self.plays:
            return self.plays.pop(0)(request)
        return web.json_response(RESET if "queue" in request.path else PAID)


async def asked(faltering: Faltering, work: Callable[[GatewayClient], object]) -> object:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", faltering.answer)
    async with (
        TestServer(app) as server,
        GatewayClient(str(server.make_url("/")), bearer("t"), patience_s=5) as gateway,
    ):
        return await work(gateway)  # type: ignore[misc]  # a coroutine of whatever is asked


PAY = partial(
    GatewayClient.pay,
    order=AppPayment(card_uuid="c", amount=1, merchant_id="m", terminal_id="t"),
)


@pytest.mark.parametrize(
    "play",
    [
        hang_up,
        problem(503, "overloaded", **{"Retry-After": "0"}),
        problem(429, "too_many_requests"),
    ],
)
async def test_what_has_a_key_is_asked_again_under_the_same_key(play: Play) -> None:
    faltering = Faltering(play, play)
    await asked(faltering, PAY)
    assert len(faltering.keys) == 3
    assert len(set(faltering.keys)) == 1
    assert faltering.keys[0] is not None


async def test_what_has_none_is_asked_once_and_its_outcome_is_unknown() -> None:
    faltering = Faltering(hang_up)
    with pytest.raises(OutcomeUnknownError, match="look at how it stands"):
        await asked(faltering, GatewayClient.reset_stuck)
    assert len(faltering.keys) == 1


async def test_what_was_surely_not_done_is_asked_again_even_so() -> None:
    faltering = Faltering(problem(429, "too_many_requests", **{"Retry-After": "1"}))
    await asked(faltering, GatewayClient.reset_stuck)
    assert len(faltering.keys) == 2


async def test_a_wait_beyond_its_patience_is_told_at_once() -> None:
    faltering = Faltering(problem(429, "too_many_requests", **{"Retry-After": "60"}))
    with pytest.raises(TooManyError) as told:
        await asked(faltering, PAY)
    assert (told.value.wait_s, told.value.retryable, len(faltering.keys)) == (60, True, 1)


async def test_a_fault_of_the_gateways_names_its_request() -> None:
    with pytest.raises(GatewayFaultError, match="tell the gateway's operator") as fault:
        await asked(Faltering(problem(500, "internal")), PAY)
    assert fault.value.request_id == "req_9"


async def test_an_endless_answer_and_one_that_is_not_the_gateways_are_none() -> None:
    for play in (
        lambda _request: web.Response(text="x" * 2_000_000),
        lambda _request: web.Response(text="<html>", status=502),
        lambda _request: web.Response(status=302, headers={"Location": "/elsewhere"}),
    ):
        with pytest.raises(LinkError):
            await asked(Faltering(play), GatewayClient.reset_stuck)


async def test_without_a_gateway_nothing_was_asked() -> None:
    gateway = GatewayClient(
        "http://127.0.0.1:9", bearer("t"), bounds=Bounds(connect_s=1), patience_s=0
    )
    async with gateway:
        with pytest.raises(NotSentError, match="check the network"):
            await gateway.reset_stuck()
