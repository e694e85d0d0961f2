"""One request of a group commit that cannot be stored: the others are answered all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from taprail_gateway.accept import AcceptItem, Answer
from taprail_gateway.api.payments import terminal_item
from taprail_gateway.audit_check import check_audit
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.invariants import check_invariants
from tests.support.gateway_fixtures import TERMINAL, UNIT, TestGateway, running_gateway
from tests.support.ledger_fixtures import on_both_engines
from tests.support.ledger_writes import writer_held

POISON_UNITS = 1_234_567
# By the database itself, when the group is written: after all of it was decided.
POISONED = {
    "sqlite": "CREATE TRIGGER poison BEFORE INSERT ON payments WHEN NEW.amount_units = 1234567"
    " BEGIN SELECT RAISE(ABORT, 'poisoned'); END",
    "postgresql": "ALTER TABLE payments ADD CONSTRAINT poison CHECK (amount_units <> 1234567)",
}


def items(gateway: TestGateway, amounts: Sequence[int]) -> list[AcceptItem]:
    """Taps of a card each, the poisoned ones of the same card as their neighbours before them."""
    cards = [gateway.card()]
    for number, amount in enumerate(amounts):
        is_poisoned = amount == POISON_UNITS
        cards.append(cards[-1] if is_poisoned else gateway.card(f"04AABBCCDD{number:02X}02"))
    made = []
    # Only now: a tap holds for seconds, which a busy machine may take to issue ten cards.
    for card, amount in zip(cards[1:], amounts, strict=True):
        request = gateway.request(card.tap(), amount=amount)
        body = str(request).replace("'", '"').encode()
        headers = gateway.headers(body)
        signature = next(value for name, value in headers.items() if "signature" in name.lower())
        made.append(terminal_item(gateway.services.proofs, TERMINAL, body, signature, 0.0))
    return made


@on_both_engines
@pytest.mark.parametrize("places", [(1,), (0,), (9,), (2, 5, 6)])
async def test_a_poisoned_request_harms_no_other(
    tmp_path: Path, ledger_url: str, ledger_engine: str, places: tuple[int, ...]
) -> None:
    async with running_gateway(tmp_path, ledger_url=ledger_url) as gateway:
        gateway.ledger.write_now(lambda c: _poison(c, ledger_engine))
        amounts = [POISON_UNITS if n in places else UNIT for n in range(10)]
        asked = items(gateway, amounts)
        async with writer_held(gateway.ledger):
            waiting = [
                asyncio.ensure_future(gateway.ledger.write_batched(gateway.services.acceptor, item))
                for item in asked
            ]
            await asyncio.sleep(0)
        told = await asyncio.gather(*waiting, return_exceptions=True)
        for number, (item, answer) in enumerate(zip(asked, told, strict=True)):
            if number in places:
                assert isinstance(answer, Exception)
                continue
            assert isinstance(answer, Answer)
            assert answer.payment_id == item.request.payment_id, answer.body
        good = len(amounts) - len(places)
        assert gateway.rows(schema.payments) == gateway.rows(schema.verdicts) == good
        assert gateway.ledger.read_now(check_invariants) == []
        report = gateway.ledger.read_now(lambda c: check_audit(c, gateway.public_key))
        assert (report.problems, report.decisions) == ([], good)


def _poison(connection: Connection, engine: str) -> None:
    connection.execute(text(POISONED[engine])).close()
