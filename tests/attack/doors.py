"""Two ways in: past the HTTP server, and through it.

`Straight` checks the terminal's signature, reads the body as the API does and joins the group
commit; `OverHttp` posts. Letters of one attack stay in their order, those of different attacks mix.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

from taprail_common.errors import InputError, SignatureError
from taprail_common.signing import Domain, verify
from taprail_common.wire import SIGNATURE_HEADER, TERMINAL_HEADER
from taprail_gateway.accept import Refusal
from taprail_gateway.api.payments import terminal_item
from tests.attack.letters import Letter, Told
from tests.attack.victims import Shop
from tests.support.gateway_fixtures import TestGateway


class Door(Protocol):
    """Takes what each attack posts next; gives what came back, in the same shape."""

    has_tokens: bool

    async def post(self, parts: Sequence[Sequence[Letter]]) -> list[list[Told]]: ...


class Straight:
    """Into the group commit: all letters of a call are waiting at once, shuffled."""

    has_tokens = False

    def __init__(self, shop: Shop, rng: random.Random, gateways: Sequence[TestGateway]) -> None:
        self._shop = shop
        self._rng = rng
        self._gateways = gateways
        self._turn = 0

    async def post(self, parts: Sequence[Sequence[Letter]]) -> list[list[Told]]:
        self._turn += 1
        turns = [place for place, letters in enumerate(parts) for _ in letters]
        self._rng.shuffle(turns)
        waiting = [iter(letters) for letters in parts]
        told = await asyncio.gather(*(self._one(place, next(waiting[place])) for place in turns))
        answers: list[list[Told]] = [[] for _ in parts]
        for place, each in zip(turns, told, strict=True):
            answers[place].append(each)
        return answers

    async def _one(self, place: int, letter: Letter) -> Told:
        # What one attack posts at once goes to one gateway: two would not keep its order.
        gateway = self._gateways[(self._turn + place) % len(self._gateways)]
        services, sender = gateway.services, letter.sender or ""
        if sender not in self._shop.keys:
            return Told(401, code="terminal_unknown")
        try:
            key = self._shop.keys[sender].verify_key
            verify(key, Domain.PAYMENT_REQUEST, letter.body, letter.signature)
            item = terminal_item(services.proofs, sender, letter.body, letter.signature, 0.0)
        except SignatureError as exc:
            return Told(401, code=exc.code)
        except InputError as exc:
            return Told(400, code=exc.code)
        result = await services.ledger.write_batched(services.acceptor, item)
        if isinstance(result, Refusal):
            return Told(result.http_status, code=result.code)
        return Told(result.http_status, result.body, result.signature)


class OverHttp:
    """Through the front door, one attack beside the other."""

    has_tokens = True

    def __init__(self, gateways: Sequence[TestGateway]) -> None:
        self._gateways = gateways

    async def post(self, parts: Sequence[Sequence[Letter]]) -> list[list[Told]]:
        return await asyncio.gather(*(self._in_order(letters) for letters in parts))

    async def _in_order(self, letters: Sequence[Letter]) -> list[Told]:
        return [await self._one(letter, place) for place, letter in enumerate(letters)]

    async def _one(self, letter: Letter, place: int) -> Told:
        headers = {"Content-Type": "application/json"}
        if letter.sender is not None:
            headers |= {TERMINAL_HEADER: letter.sender, SIGNATURE_HEADER: letter.signature}
        elif letter.bearer:
            headers["Authorization"] = f"Bearer {letter.bearer}"
        reply = await self._gateways[place % len(self._gateways)].post(letter.body, headers)
        code = None if reply.signature is not None else reply.json["reasonCode"]
        return Told(reply.status, reply.body, reply.signature, code)
