"""Cards, balances, alerts; and who comes late, or comes back, over real clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from taprail_common.payment_state import PaymentEvent
from taprail_gateway import push_watch, registry
from taprail_gateway.ledger import schema, transitions
from taprail_gateway.ledger.alerts import Level, raise_alert
from taprail_gateway.push_cursor import Cursor
from taprail_gateway.tokens import TokenKey
from tests.support.gateway_fixtures import TERMINAL, TestCard, TestGateway, running_gateway
from tests.support.push_clients import (
    TX_HASH,
    WAIT_S,
    Heard,
    complete,
    connected,
    refusal_of,
    send,
    terminal_auth,
    user_auth,
)

UNKNOWN_CARD = "card_" + "0" * 32


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


async def ping(heard: Heard) -> list[tuple[str, Any]]:
    """What it hears before the answer to a ping: all that was said to it until now."""
    await heard.client.emit("ping")
    said = []
    while (told := await heard.next())[0] != "pong":
        said.append(told)
    return said


async def settled(gateway: TestGateway) -> tuple[str, str]:
    """A payment that was completed, and told of, while its payer was away: its id and its card."""
    card = gateway.card()
    payment = (await gateway.pay(card)).json["transactionId"]
    await settle(gateway, payment, card)
    return payment, card.issued.card_uuid


async def settle(gateway: TestGateway, payment: str, card: TestCard) -> None:
    """Take it to its end; whatever the gateway has to tell of it was told then."""
    async with connected(gateway, user_auth(gateway, "bob")) as bob:
        await send(gateway, payment)
        await complete(gateway, payment, card.issued.account)
        await until(bob, "balance:update")


async def until(heard: Heard, event: str) -> dict[str, Any]:
    """Wait for an event; gives its data."""
    while True:
        name, data = await heard.next()
        if name == event:
            return dict(data)


async def test_a_card_is_followed_by_its_owner(gateway: TestGateway) -> None:
    card = gateway.card()
    uuid = card.issued.card_uuid
    async with connected(gateway, user_auth(gateway, "alice")) as alice:
        await alice.next()
        await alice.client.emit("subscribe:card", uuid)
        event, data = await alice.next()
        assert (event, data["cardUuid"]) == ("card:status:update", uuid)
        assert data["status"] == {"lastTransaction": None}
        payment = (await gateway.pay(card)).json["transactionId"]
        await send(gateway, payment)
        for status in ("processing", "sent"):
            last = (await until(alice, "card:status:update"))["status"]["lastTransaction"]
            assert (last["id"], last["status"], last["completedAt"]) == (payment, status, None)
        await alice.client.emit("unsubscribe:card", {"cardUuid": uuid})
        assert await ping(alice) == []
        await complete(gateway, payment, card.issued.account)
        assert [event for event, _ in await heard_of(alice, "balance:update")] == ["balance:update"]
        await alice.client.emit("subscribe:card", {"cardUuid": uuid})
        last = (await until(alice, "card:status:update"))["status"]["lastTransaction"]
        assert (last["status"], last["amount"]) == ("completed", 3_000_000)
        assert last["completedAt"] is not None


@pytest.mark.parametrize("user", ["mallory", "bob"])
async def test_a_card_of_somebody_else_is_not_found(gateway: TestGateway, user: str) -> None:
    uuid = gateway.card().issued.card_uuid
    async with connected(gateway, user_auth(gateway, user)) as other:
        await other.next()
        for wanted in (uuid, {"cardUuid": uuid}, UNKNOWN_CARD, "x" * 500, 7, None, {}):
            await other.client.emit("subscribe:card", wanted)
            event, data = await other.next()
            assert (event, data["message"]) == ("error", "Card not found")
            assert data["event"] == "subscribe:card"
        payment = (await gateway.pay(gateway.card("04AABBCCDDEE02"))).json["transactionId"]
        await send(gateway, payment)
        assert await ping(other) == []


async def test_a_terminal_follows_no_card(gateway: TestGateway) -> None:
    uuid = gateway.card().issued.card_uuid
    async with connected(gateway, terminal_auth(gateway)) as terminal:
        await terminal.client.emit("subscribe:card", uuid)
        assert (await terminal.next())[1]["message"] == "Card not found"


async def test_money_that_moves_is_told_to_payer_and_merchant(gateway: TestGateway) -> None:
    card = gateway.card()
    async with (
        connected(gateway, user_auth(gateway, "alice")) as alice,
        connected(gateway, user_auth(gateway, "bob")) as bob,
        connected(gateway, user_auth(gateway, "mallory")) as mallory,
    ):
        for each in (alice, bob, mallory):
            await each.next()
        payment = (await gateway.pay(card)).json["transactionId"]
        await send(gateway, payment)
        await complete(gateway, payment, card.issued.account)
        for user, amount in ((alice, -3_000_000), (bob, 3_000_000)):
            event, data = await user.next()
            assert event == "balance:update"
            last = data["balance"]["lastTransaction"]
            assert (last["amount"], last["txHash"], last["id"]) == (amount, TX_HASH, payment)
            assert data["balance"]["lastUpdate"] <= data["timestamp"]
        assert await ping(mallory) == []


async def test_who_subscribes_after_the_end_is_told_of_it_at_once(gateway: TestGateway) -> None:
    payment, card_uuid = await settled(gateway)
    async with connected(gateway, user_auth(gateway, "alice")) as alice:
        await alice.next()
        await alice.client.emit("subscribe:transaction", payment)
        told = await ping(alice)
        assert [event for event, _ in told] == ["transaction:update", "transaction:completed"]
        assert told[1][1]["txHash"] == TX_HASH
        await alice.client.emit("subscribe:card", card_uuid)
        ((_, data),) = await ping(alice)
        assert data["status"]["lastTransaction"]["status"] == "completed"


async def test_who_comes_back_with_a_cursor_hears_what_they_missed(gateway: TestGateway) -> None:
    card = gateway.card()
    payment = (await gateway.pay(card)).json["transactionId"]
    async with connected(gateway, user_auth(gateway, "alice")) as alice:
        assert (await until(alice, "connected"))["resumed"] is False
        await alice.client.emit("subscribe:transaction", payment)
        cursor = (await until(alice, "transaction:update"))["cursor"]
    await settle(gateway, payment, card)
    auth = {**user_auth(gateway, "alice"), "cursor": cursor}
    async with connected(gateway, auth) as alice:
        assert (await until(alice, "connected"))["resumed"] is True
        assert (await alice.next())[0] == "balance:update"
        await alice.client.emit("subscribe:transaction", payment)
        told = await ping(alice)
        assert [data["status"] for _, data in told] == ["processing", "sent"] + ["completed"] * 2
        newest = told[-1][1]["cursor"]
        # The same by the message's own cursor; and nothing but the state for who is up to date.
        again = {"transactionId": payment, "cursor": told[0][1]["cursor"]}
        await alice.client.emit("subscribe:transaction", again)
        assert len(await ping(alice)) == 4
        await alice.client.emit(
            "subscribe:transaction", {"transactionId": payment, "cursor": newest}
        )
        assert [event for event, _ in await ping(alice)] == [
            "transaction:update",
            "transaction:completed",
        ]
    async with connected(gateway, {**auth, "cursor": newest}) as alice:
        assert (await until(alice, "connected"))["resumed"] is True
        assert await ping(alice) == []
    async with connected(gateway, {**auth, "cursor": "nonsense"}) as alice:
        assert (await until(alice, "connected"))["resumed"] is False


def write_step(connection: Connection, payment: str, number: int) -> None:
    """A step with a state of its own, by which it is known again."""
    row = {"payment_id": payment, "event": "bind", "state": f"step-{number}", "at_ms": number}
    connection.execute(insert(schema.payment_events).values(row))


async def test_a_subscriber_hears_every_step_once_whenever_they_come(gateway: TestGateway) -> None:
    payment = (await gateway.pay(gateway.card())).json["transactionId"]
    steps = 150

    async def happen() -> None:
        for number in range(steps):
            await gateway.ledger.write(partial(write_step, payment=payment, number=number))
            gateway.services.wakeups.events.ring()

    async def listen(late: int) -> list[int]:
        async with connected(gateway, user_auth(gateway, "alice")) as alice:
            await alice.next()
            for _ in range(late):
                await ping(alice)
            await alice.client.emit("subscribe:transaction", payment)
            heard: list[int] = []
            while not heard or heard[-1] != steps - 1:
                status = (await until(alice, "transaction:update"))["status"]
                heard.append(int(status.removeprefix("step-")) if "step-" in status else -1)
            assert await ping(alice) == []
            return heard

    listening = [asyncio.create_task(listen(3 * late)) for late in range(12)]
    await happen()
    for heard in await asyncio.gather(*listening):
        assert heard == list(range(heard[0], steps))


async def test_each_message_carries_the_place_after_it(gateway: TestGateway) -> None:
    card = gateway.card()
    async with connected(gateway, user_auth(gateway, "alice")) as alice:
        places = [(await alice.next())[1]["cursor"]]
        payment = (await gateway.pay(card)).json["transactionId"]
        await alice.client.emit("subscribe:card", card.issued.card_uuid)
        await alice.client.emit("subscribe:transaction", payment)
        await send(gateway, payment)
        await complete(gateway, payment, card.issued.account)
        places += [data["cursor"] for _, data in await heard_of(alice, "balance:update")]
    seen = [Cursor.parse(place).seen for place in places]  # type: ignore[union-attr]
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


async def heard_of(heard: Heard, last: str) -> list[tuple[str, Any]]:
    """What it hears until an event, which is the last of them."""
    told = [await heard.next()]
    while told[-1][0] != last:
        told.append(await heard.next())
    return told


async def raise_one(gateway: TestGateway, kind: str, level: Level, *, review: bool = False) -> None:
    await gateway.ledger.write(
        lambda connection: raise_alert(
            connection, kind, "0xlane", level, "lane 0xlane has no coin", gateway.now_ms(), review
        )
    )


async def test_operators_hear_the_details_of_an_alert_and_others_its_gist(
    gateway: TestGateway,
) -> None:
    async with connected(gateway, user_auth(gateway, "olga")) as olga:
        await raise_one(gateway, "before", "error")
        assert (await until(olga, "system:alert"))["kind"] == "before"
    async with (
        connected(gateway, user_auth(gateway, "olga")) as olga,
        connected(gateway, user_auth(gateway, "alice")) as alice,
    ):
        await olga.next(), await alice.next()
        await raise_one(gateway, "private", "error", review=True)
        await raise_one(gateway, "lane", "error")
        await raise_one(gateway, "another", "error")  # others hear of one level now and then
        await raise_one(gateway, "slow", "warning")
        heard = [await olga.next() for _ in range(4)]
        assert [data["kind"] for _, data in heard] == ["private", "lane", "another", "slow"]
        assert heard[1][1]["message"] == "lane 0xlane has no coin"
        assert heard[0][1]["needsReview"] is True
        for level in ("error", "warning"):
            event, data = await alice.next()
            assert (event, set(data)) == ("system:alert", {"message", "level", "timestamp"})
            assert data["level"] == level
            assert "0xlane" not in data["message"]
        assert await ping(alice) == []


async def test_a_revoked_terminal_is_closed_at_once(gateway: TestGateway) -> None:
    async with connected(gateway, terminal_auth(gateway)) as terminal:
        await terminal.client.call("terminal:sync", {"requestIds": []}, timeout=WAIT_S)
        gateway.ledger.write_now(lambda connection: registry.revoke_terminal(connection, TERMINAL))
        async with asyncio.timeout(WAIT_S):
            await terminal.client.wait()
        assert gateway.push.presence().connections == 0
    assert (await refusal_of(gateway, terminal_auth(gateway)))["message"] == "Authentication failed"


async def test_who_revokes_a_terminal_here_waits_for_no_look(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_watch, "LOOK_EVERY_MS", 3_600_000)  # from the next wait on
    gateway.services.wakeups.access.ring()
    async with connected(gateway, terminal_auth(gateway)) as terminal:
        path, bob = f"/api/terminals/{TERMINAL}", gateway.bearer("bob")
        async with gateway.http.patch(path, json={"status": "revoked"}, headers=bob) as answer:
            assert answer.status == 200, await answer.text()
        async with asyncio.timeout(WAIT_S):
            await terminal.client.wait()


async def test_a_socket_lives_no_longer_than_its_token(gateway: TestGateway) -> None:
    async with connected(gateway, user_auth(gateway, "alice")) as alice:
        await alice.next()
        gateway.clock.ahead_ms = 2 * 86_400_000
        event, data = await alice.next()
        assert (event, data["message"]) == ("error", "The token has expired")
        async with asyncio.timeout(WAIT_S):
            await alice.client.wait()
    assert gateway.push.presence().connections == 0


async def test_a_socket_lives_no_longer_than_its_tokens_secret(gateway: TestGateway) -> None:
    async with connected(gateway, user_auth(gateway, "alice")) as alice:
        await alice.next()
        gateway.services.tokens.use([TokenKey.shared(b"n" * 32, "new")])
        assert (await alice.next())[0] == "error"
        async with asyncio.timeout(WAIT_S):
            await alice.client.wait()


async def test_everybody_is_told_when_the_gateway_closes(tmp_path: Path) -> None:
    heard = [Heard(), Heard()]
    async with running_gateway(tmp_path) as gateway:
        auths = [user_auth(gateway, "alice"), terminal_auth(gateway)]
        for each, auth in zip(heard, auths, strict=True):
            await each.connect(gateway, auth)
        assert (await heard[0].next())[0] == "connected"
    for each in heard:
        event, data = await each.next()
        assert (event, set(data)) == ("system:shutdown", {"message", "timestamp"})
        async with asyncio.timeout(WAIT_S):
            await each.client.wait()


async def test_presence_counts_sockets_and_users(gateway: TestGateway) -> None:
    async with (
        connected(gateway, user_auth(gateway, "alice")) as one,
        connected(gateway, user_auth(gateway, "alice")) as two,
        connected(gateway, user_auth(gateway, "bob")) as three,
        connected(gateway, terminal_auth(gateway)),
    ):
        for each in (one, two, three):
            await each.next()
        presence = gateway.push.presence()
        assert (presence.connections, presence.users) == (4, ["alice", "bob"])


async def test_a_transaction_of_a_rolled_back_number_is_no_gap_for_ever(
    gateway: TestGateway,
) -> None:
    """What is told to a late subscriber does not depend on how far the pump has come."""
    payment = (await gateway.pay(gateway.card())).json["transactionId"]
    await gateway.ledger.write(
        lambda connection: transitions.apply(
            connection, PaymentEvent.REJECT, [payment], gateway.now_ms(), failure_reason="cancelled"
        )
    )  # nobody rings: the pump may not have seen it yet
    async with connected(gateway, user_auth(gateway, "alice")) as alice:
        await alice.next()
        await alice.client.emit("subscribe:transaction", payment)
        assert [event for event, _ in await heard_of(alice, "transaction:failed")] == [
            "transaction:update",
            "transaction:failed",
        ]
