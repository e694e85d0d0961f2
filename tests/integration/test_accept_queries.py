"""Accepting must cost the same after a million payments: no statement of it may scan a table."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from tests.support.gateway_fixtures import UNIT, running_gateway

Statements = dict[str, Any]
"""What was run, with the values of one time."""


async def test_every_statement_of_a_group_searches_by_an_index(tmp_path: Path) -> None:
    statements: Statements = {}
    async with running_gateway(tmp_path) as gateway:
        cards = [gateway.card(f"04AABBCCDDEE{n:02X}") for n in range(30)]
        watch(gateway.ledger.write_engine, statements)
        replies = await asyncio.gather(*(gateway.pay(card, amount=UNIT) for card in cards))
        app = {"cardUuid": cards[0].issued.card_uuid, "amount": 1, "merchantId": "kiosk"}
        headers = gateway.bearer("alice")
        replies.append(await gateway.post({**app, "terminalId": "counter-1"}, headers))
        assert {reply.status for reply in replies} == {200}

        def plans(connection: Connection) -> list[str]:
            return [
                f"{row[3]}: {text[:90]}"
                for text, given in statements.items()
                if not text.startswith(("BEGIN", "PRAGMA"))
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given)
            ]

        seen = gateway.ledger.read_now(plans)
    for table in ("verdicts", "cards", "accounts", "terminals", "card_spend", "audit_links"):
        assert any(f"SEARCH {table}" in plan for plan in seen), table
    assert [plan for plan in seen if plan.startswith("SCAN")] == []


def watch(engine: Engine, seen: Statements) -> None:
    """Note all that the engine's connections run from now on, at the driver: the statements of a
    group do not pass through SQLAlchemy, so its events tell nothing of them."""

    class Cursor(sqlite3.Cursor):
        def execute(self, text: str, given: Any = (), /) -> Any:
            seen[text] = given
            return super().execute(text, given)

        def executemany(self, text: str, rows: Iterable[Any], /) -> Any:
            given = list(rows)
            seen[text] = given[0]
            return super().executemany(text, given)

    class Driver(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    def connect(_dialect: object, _entry: object, place: Any, options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*place, **options, factory=Driver)

    event.listen(engine, "do_connect", connect)
    engine.dispose()  # what is connected already would not be seen
