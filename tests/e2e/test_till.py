"""A merchant's till charges through the gateway: over HTTP it asks and polls, by push it hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
import socketio

from taprail_common.api.charges import CancelAnswer, ChargeBody, ChargeOrder
from taprail_common.client.errors import ConflictError
from taprail_common.client.gateway import GatewayClient, bearer
from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.stack import Stack
from taprail_hwsim.world import TERMINAL_ID
from taprail_terminal.config import load_config
from tests.e2e.books import all_told, charged_units, judge
from tests.e2e.counter import restart_gateway, restart_terminal

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
]

WAIT_S = 60.0


class Till:
    """The shop's till: it knows the public contract and a token."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.token = next(user.jwt for user in stack.world.users if user.id == "cafe-owner")
        self.currency = load_config(stack.terminal_config).terminal.currency
        self.sales = 0

    @property
    def gateway(self) -> GatewayClient:
        return GatewayClient(self.stack.gateway_url, bearer(self.token))

    async def ask(self, amount: int, seconds: int = 60) -> ChargeBody:
        """Charge, whether the terminal is there or not."""
        self.sales += 1
        order = ChargeOrder(
            amount=amount,
            currency=self.currency,
            reference=f"sale-{self.sales}",
            deadline_seconds=seconds,
        )
        async with self.gateway as gateway:
            return await gateway.charge(TERMINAL_ID, order)

    async def charge(self, amount: int, seconds: int = 60) -> ChargeBody:
        """Arm the terminal, and wait until it says that it is."""
        since = self.stack.log.position
        charge = await self.ask(amount, seconds)
        await self.armed(charge, since)
        return charge

    async def armed(self, charge: ChargeBody, since: int) -> None:
        await self.stack.log.wait_for(
            "armed",
            since=since,
            where=lambda event: event.get("charge") == charge.charge_id,
            timeout_s=WAIT_S,
        )

    async def look(self, charge: ChargeBody) -> ChargeBody:
        async with self.gateway as gateway:
            return await gateway.charge_status(TERMINAL_ID, charge.charge_id)

    async def cancel(self, charge: ChargeBody) -> CancelAnswer:
        async with self.gateway as gateway:
            return await gateway.cancel(TERMINAL_ID, charge.charge_id)

    @asynccontextmanager
    async def hearing(self) -> AsyncIterator[asyncio.Queue[dict[str, Any]]]:
        """Every `charge:update` from now on."""
        heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        client = socketio.AsyncClient(reconnection=False)
        client.on("charge:update", heard.put)
        connected = asyncio.Event()
        client.on("connected", lambda _data: connected.set())
        url = self.stack.gateway_url
        await client.connect(
            url, auth={"token": self.token}, socketio_path="nfc-ws", transports=["websocket"]
        )
        try:
            await asyncio.wait_for(connected.wait(), WAIT_S)
            yield heard
        finally:
            await client.disconnect()


async def until(heard: asyncio.Queue[dict[str, Any]], charge: ChargeBody, status: str) -> None:
    async with asyncio.timeout(WAIT_S):
        told: dict[str, Any] = {}
        while (told.get("chargeId"), told.get("status")) != (charge.charge_id, status):
            told = await heard.get()


async def settled(heard: asyncio.Queue[dict[str, Any]], charge: ChargeBody) -> None:
    """Wait until the till has heard that the money is there."""
    async with asyncio.timeout(WAIT_S):
        payment: dict[str, Any] = {}
        while payment.get("status") != "completed":
            told = await heard.get()
            payment = told["payment"] if told["chargeId"] == charge.charge_id else {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def till(stack: Stack) -> Till:
    return Till(stack)


async def test_the_till_arms_the_customer_taps_and_the_sale_completes(
    stack: Stack, till: Till, blocks: BlockWatch
) -> None:
    async with till.hearing() as heard:
        charge = await till.charge(4_250_000)
        with pytest.raises(ConflictError) as busy:
            await till.ask(1, 9)
        assert busy.value.code == "terminal_busy"
        verdict = await stack.tap("alice")
        assert verdict.get("outcome") == "approved"
        await until(heard, charge, "approved")
        await settled(heard, charge)
    shown = await till.look(charge)
    assert shown.transaction_id == verdict.get("transactionId")
    await stack.settled(str(verdict.get("request")))
    payment = (await till.look(charge)).payment
    assert payment is not None
    assert (payment.status, payment.amount) == ("completed", 4_250_000)
    assert (await till.cancel(charge)).won == "tap"
    assert charged_units(stack, "alice") == [4_250_000]
    await all_told(stack, blocks)
    judge(stack)


async def test_a_charge_that_is_cancelled_before_the_tap_takes_no_card(
    stack: Stack, till: Till
) -> None:
    since = stack.log.position
    async with till.hearing() as heard:
        charge = await till.charge(1_000_000)
        assert (await till.cancel(charge)).won == "cancel"
        await until(heard, charge, "cancelled")
    await stack.log.wait_for("disarmed", since=since, timeout_s=WAIT_S)
    assert (await till.look(charge)).status == "cancelled"


async def test_nobody_taps_in_time(stack: Stack, till: Till) -> None:
    since = stack.log.position
    async with till.hearing() as heard:
        charge = await till.charge(1_000_000, seconds=2)
        await until(heard, charge, "expired")
    await stack.log.wait_for("disarmed", since=since, timeout_s=WAIT_S)
    assert (await till.look(charge)).payment is None


async def test_neither_end_forgets_a_charge_when_it_starts_again(
    stack: Stack, till: Till, blocks: BlockWatch
) -> None:
    charge = await till.charge(2_000_000, seconds=300)
    await restart_gateway(stack)
    assert (await till.look(charge)).status == "armed"
    since = stack.log.position
    await restart_terminal(stack)
    await till.armed(charge, since)
    verdict = await stack.tap("bob")
    assert verdict.get("outcome") == "approved"
    shown = await till.look(charge)
    assert (shown.status, shown.transaction_id) == (
        "approved",
        verdict.get("transactionId"),
    )
    await all_told(stack, blocks)
    assert charged_units(stack, "bob") == [2_000_000]
    judge(stack)


async def test_a_gateway_killed_before_the_terminal_was_told_tells_it_when_both_are_back(
    stack: Stack, till: Till, blocks: BlockWatch
) -> None:
    assert await stack.terminal.stop() == 0
    made = await till.ask(3_000_000, 300)
    assert made.status == "waiting"
    await stack.gateway.kill()
    await stack.start_gateway()
    since = stack.log.position
    await stack.start_terminal()
    await till.armed(made, since)
    assert (await stack.tap("carol")).get("outcome") == "approved"
    assert (await till.look(made)).status == "approved"
    await all_told(stack, blocks)
    assert charged_units(stack, "carol") == [3_000_000]
    judge(stack)
