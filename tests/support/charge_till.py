"""A till that charges through the gateway over HTTP, and the terminal's socket at the other end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from taprail_common.charge_wire import ANSWER_EVENT, OPEN_EVENT, REQUEST_EVENT
from taprail_common.ids import new_id
from taprail_common.signing import Domain, verify
from taprail_common.wire import SignedEnvelope
from tests.support.gateway_fixtures import TERMINAL, UNIT, TestGateway
from tests.support.push_clients import Heard

PATH = f"/api/terminals/{TERMINAL}/charges"


async def till(
    gateway: TestGateway,
    path: str = PATH,
    body: dict[str, Any] | None = None,
    *,
    user: str = "bob",
    key: str | None = None,
    method: str = "POST",
) -> tuple[int, dict[str, Any]]:
    headers = gateway.bearer(user) | ({} if key is None else {"Idempotency-Key": key})
    data = None if body is None else json.dumps(body)
    async with gateway.http.request(method, path, data=data, headers=headers) as response:
        return response.status, await response.json()


def order(**changes: Any) -> dict[str, Any]:
    return {
        "amount": 3 * UNIT,
        "currency": "TUSD",
        "reference": new_id("order"),
        "deadlineSeconds": 60,
        **changes,
    }


class Counter:
    """A terminal's socket: it hears, checks the signature, and answers as it is told to."""

    def __init__(self, heard: Heard, gateway: TestGateway) -> None:
        self.heard = heard
        self.gateway = gateway

    async def next(self, event: str) -> dict[str, Any]:
        while True:
            name, data = await self.heard.next()
            envelope = SignedEnvelope.model_validate(data)
            body = envelope.body.encode()
            key = self.gateway.public_key
            verify(key, Domain.COMMAND, body, envelope.signature, about=name.encode())
            said: dict[str, Any] = json.loads(body)
            assert said["terminalId"] == TERMINAL
            if name == event:
                return said

    async def answer(self, charge_id: str, answer: str, code: str | None = None) -> None:
        said = {"chargeId": charge_id, "answer": answer, "reasonCode": code}
        await self.heard.client.emit(ANSWER_EVENT, said)

    async def open(self, charge_id: str | None = None) -> Any:
        return await self.heard.client.call(OPEN_EVENT, {"chargeId": charge_id}, timeout=10)

    async def arms(self) -> dict[str, Any]:
        """Take the next request, as a free terminal does."""
        asked = await self.next(REQUEST_EVENT)
        await self.answer(asked["chargeId"], "armed")
        return asked


async def armed(gateway: TestGateway, counter: Counter, **changes: Any) -> dict[str, Any]:
    """A charge that the terminal has taken."""
    (status, made), _ = await asyncio.gather(till(gateway, body=order(**changes)), counter.arms())
    assert status == 201, made
    charge: dict[str, Any] = made["charge"]
    while charge["status"] == "waiting":  # on a machine with much to do its word comes later
        charge = await look(gateway, charge)
    assert charge["status"] == "armed"
    return charge


async def look(gateway: TestGateway, charge: dict[str, Any]) -> dict[str, Any]:
    status, shown = await till(gateway, f"{PATH}/{charge['chargeId']}", method="GET")
    assert status == 200
    found: dict[str, Any] = shown["charge"]
    return found


async def cancel(gateway: TestGateway, charge: dict[str, Any]) -> dict[str, Any]:
    status, answer = await till(gateway, f"{PATH}/{charge['chargeId']}/cancel")
    assert status == 200
    return answer
