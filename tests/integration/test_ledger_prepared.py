"""Statements that go to the driver itself: its errors are still the ledger's."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, literal_column, select
from sqlalchemy.exc import IntegrityError

from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.errors import StorageError
from taprail_gateway.ledger.prepared import prepared
from taprail_gateway.ledger.schema import meta
from tests.support.ledger_fixtures import on_both_engines, on_postgres
from tests.support.ledger_writes import stored

INSERT = prepared(insert(meta), ["key", "value"])
ROWS = [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]


@on_both_engines
async def test_a_key_that_is_taken(ledger: Ledger) -> None:
    assert await ledger.write(lambda c: INSERT.run_each(c, ROWS)) == 2
    taken = {"key": "b", "value": "secret"}
    for work in (lambda c: INSERT.run(c, taken), lambda c: INSERT.run_each(c, [taken])):
        with pytest.raises(IntegrityError, match=r"(?i)unique") as caught:
            await ledger.write(work)
        assert "secret" not in str(caught.value)
    assert await ledger.write(lambda c: INSERT.run(c, {"key": "c", "value": "3"})) == 1
    assert await ledger.read(stored) == {"a", "b", "c"}


async def test_a_full_disk(ledger: Ledger) -> None:
    pages = await ledger.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    await ledger.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages}").close())
    with pytest.raises(StorageError, match="full"):
        await ledger.write(lambda c: INSERT.run(c, {"key": "big", "value": "x" * 100_000}))


@on_postgres
async def test_a_connection_that_is_lost_is_not_used_again(ledger: Ledger) -> None:
    end_it = prepared(select(literal_column("pg_terminate_backend(pg_backend_pid())")))
    with pytest.raises(StorageError, match="does not answer"):
        await ledger.write(lambda c: end_it.rows(c, {}))
    assert await ledger.write(lambda c: INSERT.run_each(c, ROWS)) == 2
