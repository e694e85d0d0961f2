"""The way to the gateway against a real server that misbehaves: only the right signature counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from nacl.signing import SigningKey

from taprail_common.clock import SystemClock
from taprail_common.errors import LinkError, OperatorError, PartError
from taprail_common.signing import Domain, gateway_id, public_key_text, verify
from taprail_common.wire import Outcome, SunProof, TerminalPayment, from_ms
from taprail_terminal import gateway_link
from taprail_terminal.gateway_link import (
    FIRST_RETRY_S,
    LAST_RETRY_S,
    Believed,
    Expected,
    GatewayLink,
    retry_pauses_s,
)
from taprail_terminal.identity import Identity
from taprail_terminal.outbox import OutboxRow
from taprail_terminal.push_link import BelievedNotice, PushLink
from tests.support.played_gateway import Play, PlayedGateway
from tests.support.terminal_fixtures import Counter, make_till

LIMIT_S = 20.0
DEVICE = SigningKey.generate()
IDENTITY = Identity("t1", DEVICE)


def request(number: int = 1, amount: int = 2_500_000) -> OutboxRow:
    now_ms = SystemClock().now_ms()
    body = TerminalPayment(
        request_id=f"req_{number}",
        terminal_id="t1",
        merchant_id="cafe",
        amount=amount,
        currency="USDC",
        tapped_at=from_ms(now_ms),
        accept_until=from_ms(now_ms + 15_000),
        proof=SunProof(picc_data="0" * 32, mac="0" * 16),
    ).to_json()
    return OutboxRow(f"req_{number}", amount, "USDC", body, IDENTITY.sign_request(body), now_ms)


@asynccontextmanager
async def linked(gateway: PlayedGateway, **changes: object) -> AsyncIterator[GatewayLink]:
    facts = {"merchant_id": "cafe", "currency": "USDC", "decimals": 6, **changes}
    expected = Expected(gateway.url, gateway.key.verify_key, **facts)  # type: ignore[arg-type]  # a test's own table
    link = GatewayLink(expected, IDENTITY, SystemClock())
    await link.open()
    yield link
    await link.close()


async def ask(gateway: PlayedGateway, row: OutboxRow) -> Believed:
    async with gateway.serving(), linked(gateway) as link:
        return await asyncio.wait_for(link.ask(row), LIMIT_S)


async def test_a_verdict_is_believed_and_its_evidence_kept() -> None:
    gateway, row = PlayedGateway(), request()
    believed = await ask(gateway, row)
    assert believed.verdict.verdict is Outcome.APPROVED
    evidence = believed.evidence
    key = gateway.key.verify_key
    verify(key, Domain.VERDICT, evidence.body, evidence.signature, about=row.body)
    signature = gateway.headers[0]["TapRail-Signature"]
    verify(DEVICE.verify_key, Domain.PAYMENT_REQUEST, gateway.bodies[0], signature)


async def test_a_decline_comes_with_its_reason() -> None:
    gateway = PlayedGateway()
    gateway.decline = {"reason": "3.20 left today", "reasonCode": "daily_limit", "leftUnits": 32}
    verdict = (await ask(gateway, request())).verdict
    assert (verdict.verdict, verdict.left_units) == (Outcome.DECLINED, 32)


def answers(make: Callable[[PlayedGateway, bytes], web.Response]) -> Play:
    return make


OTHER_KEY = SigningKey.generate()
NOT_BELIEVED: dict[str, Play | str] = {
    "the answer is lost": "lost",
    "500": answers(lambda _g, _b: web.Response(status=500, text="oops")),
    "503 by a proxy": answers(lambda _g, _b: web.Response(status=503, text="<html>")),
    "unsigned yes": answers(lambda g, b: web.Response(body=g.verdict(b))),
    "unsigned no": answers(lambda g, b: web.Response(body=g.verdict(b), status=400)),
    "401": answers(lambda _g, _b: web.json_response({"success": False}, status=401)),
    "another key": answers(lambda g, b: g.signed(g.verdict(b), b, key=OTHER_KEY)),
    "another purpose": answers(lambda g, b: g.signed(g.verdict(b), b, domain=Domain.ANSWER)),
    "about other bytes": answers(lambda g, b: g.signed(g.verdict(b), b + b" ")),
    "another request": answers(lambda g, b: g.signed(g.verdict(b, requestId="req_2"), b)),
    "another terminal": answers(lambda g, b: g.signed(g.verdict(b, terminalId="t2"), b)),
    "another amount": answers(lambda g, b: g.signed(g.verdict(b, amount=1), b)),
    "another currency": answers(lambda g, b: g.signed(g.verdict(b, currency="EURC"), b)),
    "no verdict in it": answers(lambda g, b: g.signed(g.verdict(b, verdict="unknown"), b)),
    "no JSON": answers(lambda g, b: g.signed(b"yes", b)),
    "too long": answers(lambda g, b: g.signed(g.verdict(b, message="x" * 9000), b)),
    "a signature of nonsense": answers(
        lambda g, b: web.Response(body=g.verdict(b), headers={"TapRail-Signature": "????"})
    ),
    "a redirect": answers(
        lambda g, _b: web.Response(status=307, headers={"Location": f"{g.url}/elsewhere"})
    ),
}


@pytest.mark.parametrize("play", NOT_BELIEVED.values(), ids=NOT_BELIEVED.keys())
async def test_whatever_is_not_a_verdict_is_no_answer_and_the_same_bytes_go_again(
    play: Play | str,
) -> None:
    gateway, row = PlayedGateway(), request()
    gateway.plays = [play]
    believed = await ask(gateway, row)
    assert believed.verdict.verdict is Outcome.APPROVED
    assert gateway.bodies == [row.body, row.body]


async def test_a_gateway_that_hangs_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_link, "ATTEMPT_LIMIT_S", 0.5)
    gateway, row = PlayedGateway(), request()
    gateway.plays = ["hang"]
    assert (await ask(gateway, row)).verdict.verdict is Outcome.APPROVED
    assert gateway.bodies == [row.body, row.body]


async def test_a_gateway_that_is_away_is_asked_until_it_is_back() -> None:
    gateway, row = PlayedGateway(), request()
    async with gateway.serving():
        port = gateway.port
    async with linked(gateway) as link:
        asking = asyncio.create_task(link.ask(row))
        await asyncio.sleep(0)
        async with gateway.serving(port):
            link.hurry()
            believed = await asyncio.wait_for(asking, LIMIT_S)
    assert believed.verdict.request_id == row.request_id


async def test_a_verdict_for_one_request_is_never_taken_for_another() -> None:
    gateway = PlayedGateway()
    one, two = request(1), request(2)
    gateway.plays = [lambda g, b: g.signed(g.verdict(b), b)]
    async with gateway.serving(), linked(gateway) as link:
        first = await link.ask(one)
        stolen = first.evidence
        replay = web.Response(body=stolen.body, headers={"TapRail-Signature": stolen.signature})
        gateway.plays = [lambda _g, _b: replay]
        second = await asyncio.wait_for(link.ask(two), LIMIT_S)
    assert second.verdict.request_id == "req_2"
    assert gateway.bodies == [one.body, two.body, two.body]


def test_pauses_grow_and_stay_bounded() -> None:
    pauses = retry_pauses_s()
    first = [next(pauses) for _ in range(50)]
    assert FIRST_RETRY_S * 0.75 <= first[0] <= FIRST_RETRY_S * 1.25
    assert all(pause <= LAST_RETRY_S * 1.25 for pause in first)
    assert min(first[-10:]) >= LAST_RETRY_S * 0.75


async def test_the_greeting_tells_how_far_the_clock_is_off() -> None:
    gateway = PlayedGateway()
    gateway.clock_offset_ms = 42_000
    async with gateway.serving(), linked(gateway) as link:
        greeting = await link.greet()
    assert abs(greeting.clock_offset_ms - 42_000) < 2_000
    assert greeting.hello.status == "active"


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"merchant_id": "bar"}, "merchant_id"), ({"decimals": 2}, "decimals")],
)
async def test_a_gateway_that_knows_this_terminal_otherwise_stops_it(
    changes: dict[str, object], word: str
) -> None:
    gateway = PlayedGateway()
    async with gateway.serving(), linked(gateway, **changes) as link:
        with pytest.raises(OperatorError, match=word):
            await link.keep_warm()


async def test_a_greeting_by_another_key_is_no_greeting() -> None:
    gateway = PlayedGateway()
    async with gateway.serving(), linked(gateway) as link:
        gateway.key = OTHER_KEY
        with pytest.raises(LinkError, match="believed"):
            await link.greet()
    assert link.greeting is None


class Listener:
    """A push link and what it believed."""

    def __init__(self, gateway: PlayedGateway, open_requests: list[OutboxRow]) -> None:
        self.heard: asyncio.Queue[BelievedNotice] = asyncio.Queue()
        self.disk_failures = 0

        async def unfinished() -> list[OutboxRow]:
            if self.disk_failures:
                self.disk_failures -= 1
                raise PartError("outbox", "disk I/O error")
            return open_requests

        self.link = PushLink(
            gateway.url,
            gateway.key.verify_key,
            IDENTITY,
            SystemClock(),
            on_notice=self.heard.put,
            open_requests=unfinished,
            till=make_till(Counter(), SystemClock()),
        )

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.link.run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def next(self) -> BelievedNotice:
        return await asyncio.wait_for(self.heard.get(), LIMIT_S)


async def test_a_disk_that_fails_at_a_connect_is_tried_again_at_the_next() -> None:
    gateway, row = PlayedGateway(), request()
    gateway.bodies = [row.body]
    async with gateway.serving():
        listener = Listener(gateway, [row])
        listener.disk_failures = 2
        async with listener.listening():
            assert (await listener.next()).notice.request_id == row.request_id
    assert len(gateway.connects) == 3


async def test_open_requests_are_asked_about_on_each_connect() -> None:
    gateway, row = PlayedGateway(), request()
    gateway.bodies = [row.body]
    async with gateway.serving():
        listener = Listener(gateway, [row])
        async with listener.listening():
            notice = (await listener.next()).notice
    assert (notice.request_id, notice.status) == (row.request_id, "completed")
    assert gateway.synced == [[row.request_id]]


async def test_many_open_requests_are_asked_about_in_batches() -> None:
    gateway, last = PlayedGateway(), request(249)
    gateway.bodies = [last.body]
    async with gateway.serving():
        listener = Listener(gateway, [request(number) for number in range(250)])
        async with listener.listening():
            await listener.next()
    assert [len(batch) for batch in gateway.synced] == [100, 100, 50]


async def test_each_connect_is_signed_anew() -> None:
    gateway = PlayedGateway()
    gateway.refuse_connects = 2
    async with gateway.serving():
        listener = Listener(gateway, [])
        async with listener.listening():
            await asyncio.wait_for(gateway.connected.wait(), LIMIT_S)
    assert len({auth["nonce"] for auth in gateway.connects}) == 3
    for auth in gateway.connects:
        identifier = gateway_id(gateway.key.verify_key)
        signed = f"{identifier}\nt1\n{auth['timestamp']}\n{auth['nonce']}".encode()
        verify(DEVICE.verify_key, Domain.CONNECT, signed, auth["signature"])


async def test_notices_that_are_not_ours_are_not_heard() -> None:
    gateway, row = PlayedGateway(), request()
    async with gateway.serving():
        listener = Listener(gateway, [])
        async with listener.listening():
            await asyncio.wait_for(gateway.connected.wait(), LIMIT_S)
            forged = gateway.notice("completed", row.body)
            await gateway.emit({**forged, "body": forged["body"].replace("completed", "failed")})
            await gateway.emit("nonsense")
            await gateway.emit({"body": 5})
            await gateway.notify("completed", row.body, terminalId="t2")
            await gateway.notify("sent", row.body)
            heard = await listener.next()
    assert heard.notice.status == "sent"
    assert listener.heard.empty()


async def test_a_lost_connection_is_made_again() -> None:
    gateway, row = PlayedGateway(), request()
    async with gateway.serving():
        port = gateway.port
        listener = Listener(gateway, [])
        run = listener.listening()
        await run.__aenter__()
        await asyncio.wait_for(gateway.connected.wait(), LIMIT_S)
    again = PlayedGateway()
    again.key = gateway.key
    async with again.serving(port):
        await asyncio.wait_for(again.connected.wait(), LIMIT_S)
        await again.notify("completed", row.body)
        assert (await listener.next()).notice.status == "completed"
        await run.__aexit__(None, None, None)


def test_the_identity_shows_no_private_key() -> None:
    assert bytes(DEVICE).hex() not in repr(IDENTITY)
    assert IDENTITY.public_key == public_key_text(DEVICE.verify_key)


async def test_a_link_cancelled_while_the_gateway_goes_down_ends() -> None:
    """Both are told to stop at once: the library swallows a cancellation amid its goodbye, and a
    link that connected again would never stop. Each turn cancels a little later in that goodbye."""
    for turns in range(0, 40, 2):
        gateway = PlayedGateway()
        async with gateway.serving():
            listener = Listener(gateway, [])
            task = asyncio.create_task(listener.link.run())
            await asyncio.wait_for(gateway.connected.wait(), LIMIT_S)
            await gateway.hang_up()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task}, timeout=LIMIT_S)
            assert task.cancelled(), turns
