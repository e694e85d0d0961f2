"""Pytest fixtures of the ledger: real, migrated and empty, on either engine; what a payment needs.

`ledger` and `ledger_url` are on SQLite, unless a module asks for both engines:

    pytestmark = on_both_engines
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection, insert

from taprail_common.clock import SystemClock
from taprail_common.ids import payment_id
from taprail_gateway.ledger import leases, migrate, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease
from tests.support.empty_ledger import empty_ledger
from tests.support.postgres_server import NoPostgresError, PostgresServer

PAYEE = "0x" + "aa" * 20
LANE = "0x" + "bb" * 20
DAY = "2024-05-31"
NOW_MS = 1_717_171_717_000


@dataclass(frozen=True)
class SeededCard:
    """A card with an account of its own."""

    uuid: str
    account: str


@dataclass(frozen=True)
class Registry:
    """Rows that every payment refers to."""

    user_id: str
    merchant_id: str
    terminal_id: str
    cards: tuple[SeededCard, ...]

    def payment(self, request_id: str, *, card: int = 0, amount_units: int = 1) -> dict[str, Any]:
        """A row for `transitions.accept`."""
        return {
            "id": payment_id(self.terminal_id, request_id),
            "requester": self.terminal_id,
            "request_id": request_id,
            "terminal_id": self.terminal_id,
            "merchant_id": self.merchant_id,
            "card_uuid": self.cards[card].uuid,
            "user_id": self.user_id,
            "payer": self.cards[card].account,
            "payee": PAYEE,
            "amount_units": amount_units,
            "currency": "TUSD",
            "profile": "sun",
            "priority": 0,
            "auth_code": "A1B2C3",
            "spend_day": DAY,
            "tapped_at_ms": NOW_MS,
        }


on_both_engines = pytest.mark.parametrize("ledger_engine", ["sqlite", "postgresql"])
on_postgres = pytest.mark.parametrize("ledger_engine", ["postgresql"])


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server, shared: whoever stops it starts it again."""
    try:
        server = PostgresServer()
    except NoPostgresError as exc:
        if os.environ.get("CI") == "1":
            raise
        pytest.skip(str(exc))
    with server:
        yield server


@pytest.fixture(scope="session")
def empty_ledger_database(postgres: PostgresServer) -> str:
    """The name of a migrated ledger to be copied."""
    name = postgres.create_database()
    migrate.upgrade(postgres.url(name))
    return name


@pytest.fixture
def ledger_engine() -> str:
    """What `ledger_url` is on; the marks above set it."""
    return "sqlite"


@pytest.fixture
def ledger_url(ledger_engine: str, request: pytest.FixtureRequest) -> str:
    """The URL of an empty, migrated ledger of this test's own."""
    url: str = request.getfixturevalue(f"{ledger_engine}_ledger_url")
    return url


@pytest.fixture
def sqlite_ledger_url(tmp_path: Path) -> str:
    return empty_ledger(tmp_path)


@pytest.fixture
def postgresql_ledger_url(postgres: PostgresServer, empty_ledger_database: str) -> Iterator[str]:
    name = postgres.create_database(template=empty_ledger_database)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def no_ledger_url(ledger_engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of a place for a ledger where there is none yet."""
    if ledger_engine == "sqlite":
        return f"sqlite:///{tmp_path / 'new.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url(server.create_database())


@pytest_asyncio.fixture
async def ledger(ledger_url: str) -> AsyncIterator[Ledger]:
    """A started ledger, closed after the test."""
    ledger = Ledger.open(ledger_url, clock=SystemClock())
    await ledger.start()
    yield ledger
    await ledger.close()


def seed_registry(
    ledger: Ledger,
    *,
    cards: int = 1,
    balance_units: int = 1_000_000_000,
    single_limit_units: int = 50_000_000,
    daily_limit_units: int = 200_000_000,
) -> Registry:
    """Insert a user, a merchant with a terminal, a lane, and cards with an account each."""
    registry = Registry(
        user_id="user_1",
        merchant_id="merchant_1",
        terminal_id="terminal_1",
        cards=tuple(
            SeededCard(f"card_{i}", "0x" + secrets.token_hex(20)) for i in range(1, cards + 1)
        ),
    )
    limits = {"single_limit_units": single_limit_units, "daily_limit_units": daily_limit_units}
    ledger.write_now(lambda connection: _insert(connection, registry, balance_units, limits))
    return registry


def _insert(
    connection: Connection, registry: Registry, balance_units: int, limits: dict[str, int]
) -> None:
    made = {"created_at_ms": NOW_MS}
    active = {"status": "active", **made}
    rows: dict[str, list[dict[str, Any]]] = {
        "users": [{"id": registry.user_id, "name": "Ada", "role": "customer", **made}],
        "merchants": [{"id": registry.merchant_id, "name": "Shop", "account": PAYEE, **active}],
        "terminals": [
            {
                "id": registry.terminal_id,
                "merchant_id": registry.merchant_id,
                "name": "Till",
                "public_key": "00" * 32,
                **active,
            }
        ],
        "lanes": [{"address": LANE, "wrapped_key": b"\1", "next_nonce": 0, **made}],
        "accounts": [
            {
                "address": card.account,
                "wrapped_key": b"\1",
                "balance_units": balance_units,
                **made,
            }
            for card in registry.cards
        ],
        "cards": [
            {
                "uuid": card.uuid,
                "name": card.uuid,
                "profile": "sun",
                "uid_digest": f"{i:064x}",
                "user_id": registry.user_id,
                "account": card.account,
                "time_zone": "Europe/Berlin",
                **limits,
                **active,
            }
            for i, card in enumerate(registry.cards)
        ],
    }
    for table, values in rows.items():
        connection.execute(insert(schema.metadata.tables[table]), values)


def lease_of(connection: Connection, lane: str = LANE) -> Lease:
    """A lease of a lane, whoever had it before."""
    owner = secrets.token_hex(8)
    lease = leases.acquire(connection, leases.lane_lease(lane), owner, NOW_MS, takeover=True)
    assert lease is not None
    return lease
