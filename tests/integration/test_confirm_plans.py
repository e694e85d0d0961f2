"""A pass costs what there is to do: none of its statements may read what is done with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Engine, event

from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.judge import PROOF_DEPTH
from taprail_hwsim.dev_chain import DevChain
from tests.support import eip3009
from tests.support.confirm_shop import go_on, send_from_each, still_shop
from tests.support.settle_shop import Shop, blocks

pytestmark = pytest.mark.chain

READ_ONCE = "SELECT accounts.address \nFROM accounts", "SELECT max(accounts.balance_block)"
"""All accounts are read at the start and after a reorg, by those who follow them."""
GROWS = ("payments", "chain_transactions", "attempts", "bindings", "payment_events", "accounts")
OF_WHAT_IS_OPEN = ("ix_payments_refused", "ix_accounts_unread")
"""Indexes that hold nothing that is done with, and are read whole."""

Statements = dict[str, Any]


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    async with still_shop(
        chain,
        ledger,
        tmp_path / "master.key",
        lanes=2,
        payments_per_transaction=2,
        confirmation_timeout_s=60,
    ) as opened:
        yield opened


@contextmanager
def remembering(*engines: Engine) -> Iterator[Statements]:
    """Every statement that is carried out, with values that it was given."""
    seen: Statements = {}

    def remember(_c: Any, _cursor: Any, text: str, given: Any, _context: Any, many: bool) -> None:
        seen[text] = given[0] if many else given

    for engine in engines:
        event.listen(engine, "before_cursor_execute", remember)
    yield seen
    for engine in engines:
        event.remove(engine, "before_cursor_execute", remember)


def scans(ledger: Ledger, statements: Statements) -> list[str]:
    """Those that read a table that grows, or an index of it, from one end to the other."""
    with ledger.read_engine.begin() as connection:
        return [
            f"{plan}: {text[:300]}"
            for text, given in statements.items()
            if text.startswith(("SELECT", "UPDATE", "WITH", "DELETE"))
            if not text.startswith(READ_ONCE)
            for *_, plan in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given)
            if plan.startswith(tuple(f"SCAN {table}" for table in GROWS))
            if not plan.endswith(OF_WHAT_IS_OPEN)
        ]


async def test_no_statement_of_a_pass_reads_the_history(shop: Shop) -> None:
    settlement = await shop.settlement()
    with remembering(shop.ledger.read_engine, shop.ledger.write_engine) as seen:
        done = await send_from_each(shop, settlement)
        await blocks(shop, settlement, 2)
        assert shop.states(done) == {"completed": 4}
        shop.chain.reorg(2)
        await blocks(shop, settlement, 2)
        late = await send_from_each(shop, settlement)
        shop.chain.node.call("anvil_dropAllTransactions")
        cancel = eip3009.cancel_call_data(shop.chain, shop.holder(), late[0])
        shop.chain.send(shop.chain.accounts[2], shop.chain.token_address, cancel)
        shop.clock.ahead_ms += 61_000
        await blocks(shop, settlement)
        assert "confirmation_failed" in shop.states(late)
        [refused] = await shop.sell()
        cancel = eip3009.cancel_call_data(shop.chain, shop.holder(), refused)
        shop.chain.send(shop.chain.accounts[2], shop.chain.token_address, cancel)
        await go_on(shop, settlement)
        shop.chain.advance_time(3_601)
        shop.chain.mine(PROOF_DEPTH)
        shop.clock.ahead_ms += 3_601_000
        await go_on(shop, settlement, 2)
        assert shop.states([late[0], refused]) == {"failed": 2}
    assert len(seen) > 50
    assert scans(shop.ledger, seen) == []
