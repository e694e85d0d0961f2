"""Accepting must cost the same after a million payments: no statement of it may scan a table."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event

from tests.support.gateway_fixtures import UNIT, running_gateway


async def test_every_statement_of_a_group_searches_by_an_index(tmp_path: Path) -> None:
    statements: dict[str, Any] = {}

    def remember(
        _connection: object, _cursor: object, text: str, given: Any, _context: object, many: bool
    ) -> None:
        statements[text] = given[0] if many else given

    async with running_gateway(tmp_path) as gateway:
        cards = [gateway.card(f"04AABBCCDDEE{n:02X}") for n in range(30)]
        event.listen(gateway.ledger.write_engine, "before_cursor_execute", remember)
        replies = await asyncio.gather(*(gateway.pay(card, amount=UNIT) for card in cards))
        app = {"cardUuid": cards[0].issued.card_uuid, "amount": 1, "merchantId": "kiosk"}
        headers = gateway.bearer("alice")
        replies.append(await gateway.post({**app, "terminalId": "counter-1"}, headers))
        assert {reply.status for reply in replies} == {200}
        event.remove(gateway.ledger.write_engine, "before_cursor_execute", remember)

        def plans(connection: Connection) -> list[str]:
            return [
                f"{row[3]}: {text[:90]}"
                for text, given in statements.items()
                if not text.startswith("BEGIN")
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given)
            ]

        seen = gateway.ledger.read_now(plans)
    assert any("SEARCH verdicts" in plan for plan in seen)
    assert any("SEARCH accounts" in plan for plan in seen)
    assert [plan for plan in seen if plan.startswith("SCAN")] == []
