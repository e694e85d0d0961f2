"""A gateway on a real chain with thousands of cards, for load: no terminal, no radio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey
from sqlalchemy import Connection, func, select

from taprail_common.clock import SystemClock
from taprail_common.signing import public_key_text
from taprail_gateway import issuer, registry
from taprail_gateway.config import GatewaySettings
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger
from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.cards.ntag424 import Ntag424
from taprail_hwsim.load import Plan, Report, Till, apply_load, payments
from taprail_hwsim.stack import Stack, StackOptions
from taprail_hwsim.world import MERCHANT_ID
from tests.bench.scenario import BenchError

AMOUNT_UNITS: Final = 10_000
_LIMIT_UNITS: Final = 10**12
_BALANCE_UNITS: Final = 10**9
TERMINAL_ID: Final = "load-1"
_FRAUD: Final = """
[fraud]
alert_points = 1000
decline_points = 1000
"""
"""Cards that tap all day long at one terminal are what the rules are against: they are asked, they
give their points, and nothing follows."""
_BLOCKS: Final = 20
_LEAD_MS: Final = 25_000
"""Requests are dated ahead by this, within the allowed clock skew: they are signed before the run,
and a tap holds for 15 s."""


@dataclass
class Market:
    """The stack, and who pays in it."""

    stack: Stack
    till: Till
    cards: Sequence[Ntag424]
    ready_s: float
    """From starting the gateway to its word that it is ready."""

    @property
    def port(self) -> int:
        return int(self.stack.gateway_url.rsplit(":", 1)[1])

    async def pay(self, count: int, *, connections: int, rate_per_s: float | None = None) -> Report:
        """Offer payments; raises BenchError unless every single one is approved."""
        now_ms = SystemClock().now_ms()
        signed = payments(
            self.till,
            self.cards,
            count,
            amount_units=AMOUNT_UNITS,
            tapped_at_ms=now_ms + _LEAD_MS,
        )
        report = await apply_load(Plan(self.port, connections, signed, rate_per_s))
        if report.first_failure is not None:
            raise BenchError(f"not all were approved: {report.statuses} {report.first_failure}")
        return report

    async def first_completed(self) -> None:
        """Wait until settlement is under way."""
        await _each_block(self, _has_completed, "completed a payment")

    def ledger(self) -> Ledger:
        """The gateway's ledger, to read in; to be disposed of."""
        url = GatewaySettings.load(self.stack.gateway_config).database_url
        return Ledger.open(url, clock=SystemClock())


@asynccontextmanager
async def open_market(folder: Path, *, cards: int, **settlement: int) -> AsyncIterator[Market]:
    """Start chain and gateway, with these settings of settlement, and give the cards what they
    will spend."""
    options = StackOptions(folder, with_terminal=False, settlement=settlement)
    async with Stack(options) as stack:
        await stack.gateway.stop()
        with stack.gateway_config.open("a") as config:
            config.write(_FRAUD)
        till, purse = await asyncio.to_thread(_provision, stack, cards)
        await asyncio.to_thread(stack.chain.mint_all, dict.fromkeys(purse, _BALANCE_UNITS))
        began_s = time.monotonic()
        await stack.start_gateway()
        market = Market(stack, till, list(purse.values()), time.monotonic() - began_s)
        await _each_block(market, _balances_read, "read its cards' balances")
        yield market


def _provision(stack: Stack, count: int) -> tuple[Till, dict[str, Ntag424]]:
    settings = GatewaySettings.load(stack.gateway_config)
    custody = Custody.load(settings.master_key_file)
    key = SigningKey.generate()
    now_ms = SystemClock().now_ms()

    def fill(connection: Connection) -> dict[str, Ntag424]:
        custody.attach(connection)
        public_key = public_key_text(key.verify_key)
        registry.add_user(connection, "crowd", "Crowd", "customer", now_ms)
        registry.add_terminal(connection, TERMINAL_ID, MERCHANT_ID, public_key, now_ms)
        return dict(_issue(connection, custody, number, now_ms) for number in range(count))

    ledger = Ledger.open(settings.database_url, clock=SystemClock())
    try:
        return Till(TERMINAL_ID, MERCHANT_ID, "DUSD", key), ledger.write_now(fill)
    finally:
        ledger.dispose()


def _issue(
    connection: Connection, custody: Custody, number: int, now_ms: int
) -> tuple[str, Ntag424]:
    """A card's account, and its chip."""
    uid = bytes([4]) + number.to_bytes(6, "big")
    order = registry.CardOrder(
        "crowd", uid, single_limit_units=_LIMIT_UNITS, daily_limit_units=_LIMIT_UNITS
    )
    issued = registry.issue_card(connection, custody, order, now_ms)
    issuers = issuer.load(connection, custody)
    keys = issuer.card_keys(issuers, issued.key_version, uid)
    return issued.account, Ntag424(uid, keys.meta_read_key, keys.file_read_key)


async def _each_block(market: Market, seen: Callable[[Connection], bool], what: str) -> None:
    """Look into the ledger at each block until it holds what is waited for."""
    ledger = market.ledger()
    try:
        async with BlockWatch(market.stack.chain.rpc_url) as watch:
            for _ in range(_BLOCKS):
                if ledger.read_now(seen):
                    return
                await watch.next_block()
    finally:
        ledger.dispose()
    raise BenchError(f"after {_BLOCKS} blocks the gateway has not {what}")


def _balances_read(connection: Connection) -> bool:
    unread = select(func.count()).where(schema.accounts.c.balance_units == 0)
    return not connection.scalar(unread)


def _has_completed(connection: Connection) -> bool:
    one = select(schema.payments.c.id).where(schema.payments.c.state == "completed").limit(1)
    return connection.scalar(one) is not None
