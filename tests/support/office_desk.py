"""Somebody at a desk: an operator or a merchant who asks over HTTP, and what is noted of it."""

from __future__ import annotations

from typing import Any

from taprail_gateway.ledger import actions
from taprail_gateway.tokens import Scope
from tests.support.gateway_fixtures import TestGateway


class Desk:
    """Somebody who asks with their token."""

    def __init__(self, gateway: TestGateway, user: str, *scopes: Scope) -> None:
        self._gateway = gateway
        token = gateway.token(user, scopes or tuple(Scope))
        self._headers = {"Authorization": f"Bearer {token}"}

    async def __call__(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        asked = self._gateway.http.request(method, path, json=body, headers=self._headers)
        async with asked as response:
            return response.status, await response.json()

    async def get(self, path: str) -> Any:
        status, body = await self("GET", path)
        assert status == 200, body
        return body


async def paid(gateway: TestGateway, count: int = 1, **card: Any) -> list[str]:
    issued = gateway.card(**card)
    return [(await gateway.pay(issued)).json["transactionId"] for _ in range(count)]


def notes(gateway: TestGateway) -> list[tuple[str, str, str]]:
    found = gateway.ledger.read_now(lambda connection: actions.history(connection, 50))
    return [(each.actor, each.action, each.subject) for each in reversed(found)]
