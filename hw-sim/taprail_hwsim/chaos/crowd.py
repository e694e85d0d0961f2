"""Customers who pay at a rate: signed requests over HTTP until each has its signed verdict.

Like a terminal, a customer's request is posted with the same bytes until the gateway has answered
with a verdict that verifies; nothing else is believed. A card pays again when its last request is
answered, so its counter rises in the order of the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from nacl.signing import VerifyKey

from taprail_common.client.exchange import Bounds, Exchange
from taprail_common.clock import SystemClock
from taprail_common.errors import TapRailError
from taprail_common.ids import payment_id
from taprail_common.signing import Domain, load_key_file, parse_public_key, verify
from taprail_common.wire import PAYMENT_PATH, SIGNATURE_HEADER, Outcome, Verdict, parse
from taprail_hwsim import world as worlds
from taprail_hwsim.cards.ntag424 import Ntag424
from taprail_hwsim.load import Till
from taprail_hwsim.stack import Stack

_BOUNDS: Final = Bounds(attempt_s=5.0, connections=100, answer_bytes=64 * 1024)
_RETRY_S: Final = 0.2
_SMALLEST_UNITS: Final = 1_000
_LARGEST_UNITS: Final = 20_000
"""Two cents: a card's limit of 200.00 a day is then enough for hours."""


@dataclass
class Sale:
    """One request and what was answered; `payment_id` is the nonce of its transfer."""

    payment_id: str
    payer: str
    amount_units: int
    body: bytes = field(repr=False)
    outcome: Outcome | None = None
    reason: str | None = None
    answered_by: int | None = None
    """The gateway's number."""

    @property
    def is_approved(self) -> bool:
        return self.outcome is Outcome.APPROVED


class Crowd:
    """The cards of a stack's world in the hands of people who never stop."""

    def __init__(self, stack: Stack, rng: random.Random, rate_per_s: float) -> None:
        key = load_key_file(stack.device_key, "device key")
        symbol = stack.chain.token_symbol()
        self.sales: list[Sale] = []
        self._till = Till(worlds.TERMINAL_ID, worlds.MERCHANT_ID, symbol, key)
        self._gateway_key: VerifyKey = parse_public_key(stack.world.gateway_public_key)
        self._asked = 0
        self._random = rng
        self._pause_s = 1 / rate_per_s
        self._stack = stack
        self._free = deque(worlds.REGULARS)
        self._given_back = asyncio.Event()
        self._waiting: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def paying(self) -> AsyncIterator[None]:
        """They pay as long as this lasts; requests that are open at its end go on."""
        gateways = [Exchange(url, _BOUNDS) for url in self._stack.gateway_urls]
        for gateway in gateways:
            await gateway.open()
        coming = asyncio.create_task(self._come(gateways))
        try:
            yield
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            closing = asyncio.create_task(self._close_after(gateways, set(self._waiting)))
            self._waiting.add(closing)
            closing.add_done_callback(self._waiting.discard)

    async def all_answered(self, timeout_s: float) -> bool:
        """Wait until every request has its verdict; False when some still have none in time."""
        if not self._waiting:
            return True
        _, late = await asyncio.wait(self._waiting, timeout=timeout_s)
        return not late

    async def go_home(self) -> None:
        """Give up what is not answered."""
        for task in set(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    async def _come(self, gateways: Sequence[Exchange]) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            while not self._free:
                self._given_back.clear()
                await self._given_back.wait()
            name = self._free.popleft()
            task = asyncio.create_task(self._pay(gateways, name))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
            due_s = max(due_s + self._pause_s, loop.time())
            await asyncio.sleep(due_s - loop.time())

    async def _pay(self, gateways: Sequence[Exchange], name: str) -> None:
        sale = self._tap(name)
        self.sales.append(sale)
        headers = self._till.headers(sale.body)
        while not await self._post(gateways, sale, headers):  # noqa: ASYNC110 - no event from outside
            await asyncio.sleep(_RETRY_S)
        self._free.append(name)
        self._given_back.set()

    def _tap(self, name: str) -> Sale:
        card = self._stack.cards[name]
        assert isinstance(card, Ntag424)  # noqa: S101 - regulars have such cards
        units = self._random.randint(_SMALLEST_UNITS, _LARGEST_UNITS)
        body = self._till.body(card, units, SystemClock().now_ms())
        request_id = json.loads(body)["requestId"]
        payer = self._stack.world.card(name).account
        return Sale(payment_id(worlds.TERMINAL_ID, request_id), payer, units, body)

    async def _post(
        self, gateways: Sequence[Exchange], sale: Sale, headers: dict[str, str]
    ) -> bool:
        """Ask once; whether there is a verdict now. Whatever does not verify says nothing.

        Several gateways are asked in turn, whoever was asked before.
        """
        self._asked += 1
        number = self._asked % len(gateways)
        with contextlib.suppress(TapRailError):
            reply = await gateways[number].send(
                "POST", PAYMENT_PATH, body=sale.body, headers=headers
            )
            answer, signature = reply.body, reply.headers.get(SIGNATURE_HEADER, "")
            verify(self._gateway_key, Domain.VERDICT, answer, signature, about=sale.body)
            verdict = parse(Verdict, answer)
            sale.outcome, sale.reason = verdict.verdict, verdict.reason_code
            sale.answered_by = number
        return sale.outcome is not None

    async def _close_after(
        self, gateways: Sequence[Exchange], tasks: set[asyncio.Task[None]]
    ) -> None:
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for gateway in gateways:
                await gateway.close()
