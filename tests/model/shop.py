"""A merchant's ledger in the model's world: who pays, and what is sold.

Keys, ids and times are the same in every run. The ledger is a real file, copied from one that was
migrated once.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final

from eth_account import Account
from eth_utils.crypto import keccak
from sqlalchemy import Connection, delete, func, insert, select, update

from taprail_common.ids import payment_id
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import schema, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.master_keys import KeyRing
from tests.model.gateway import ModelLedger, Process, open_ledger
from tests.model.world import World
from tests.support.empty_ledger import template
from tests.support.ledger_fixtures import DAY, NOW_MS, Registry, SeededCard, seed_registry
from tests.support.manual_clock import ManualClock

CARDS: Final = 3
BALANCE_UNITS: Final = 2_000
DAILY_LIMIT_UNITS: Final = 10**12
ETHER: Final = 10**18
LANE_COINS_WEI: Final = 100 * ETHER


def secret(name: str) -> bytes:
    """The private key of someone in this world."""
    return keccak(text=f"model {name}")


def address(name: str) -> str:
    """The account of that key."""
    return str(Account.from_key(secret(name)).address).lower()


CUSTODY: Final = Custody(KeyRing(secret("master key")))
CARD_ACCOUNTS: Final = tuple(address(f"card {number}") for number in range(CARDS))


def lane_addresses(lanes: int) -> list[str]:
    """The wallets that send."""
    return [address(f"lane {number}") for number in range(lanes)]


def genesis(lanes: int) -> World:
    """Funded wallets and funded cards."""
    return World(
        coins_wei=dict.fromkeys(lane_addresses(lanes), LANE_COINS_WEI),
        tokens=dict.fromkeys(CARD_ACCOUNTS, BALANCE_UNITS),
    )


@dataclass
class Shop:
    """One ledger, looked at and written to from beside any gateway."""

    folder: tempfile.TemporaryDirectory[str]
    registry: Registry
    ledger: ModelLedger
    clock: ManualClock
    sold: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Of the ledger."""
        return f"sqlite:///{self.path}"

    @property
    def path(self) -> Path:
        """The ledger's file."""
        return Path(self.folder.name) / "ledger.db"

    def close(self) -> None:
        """Remove it."""
        self.ledger.dispose()
        self.folder.cleanup()

    def sell(self, card: int, amount_units: int, priority: int) -> bool:
        """Accept one payment, if the card's account covers it."""
        request = f"req_{len(self.sold)}"
        row = self.registry.payment(request, card=card, amount_units=amount_units)
        row["priority"] = priority

        def accept(connection: Connection) -> bool:
            if not transitions.hold(connection, row["payer"], amount_units):
                return False
            assert transitions.reserve_spend(
                connection, row["card_uuid"], DAY, amount_units, DAILY_LIMIT_UNITS
            )
            transitions.accept(connection, [row], self.clock.now_ms())
            return True

        accepted = self.ledger.write_now(accept)
        if accepted:
            self.sold.append(payment_id(self.registry.terminal_id, request))
        return accepted

    def open_payments(self) -> int:
        """How many are not settled."""
        count = select(func.count()).where(schema.payment_is_open)
        return self.ledger.read_now(lambda connection: connection.scalar(count) or 0)

    def one_sold(self, choice: int) -> str | None:
        """One of the payments; None before the first."""
        return self.sold[choice % len(self.sold)] if self.sold else None


def open_shop(lanes: int, clock: ManualClock) -> Shop:
    """A new ledger with cards and lanes."""
    source, registry = _template(lanes)
    folder = _folder()
    shutil.copy(source, Path(folder.name) / "ledger.db")
    ledger = open_ledger(f"sqlite:///{folder.name}/ledger.db", clock, Process())
    return Shop(folder, registry, ledger, clock)


def _folder() -> tempfile.TemporaryDirectory[str]:
    memory = Path("/dev/shm")  # the syncs are real, what they cost is not what is tested
    return tempfile.TemporaryDirectory(
        prefix="taprail-model-", dir=memory if memory.is_dir() else None
    )


_kept: Final[list[tempfile.TemporaryDirectory[str]]] = []


@cache
def _template(lanes: int) -> tuple[Path, Registry]:
    folder = _folder()
    _kept.append(folder)  # for as long as this process runs
    path = Path(folder.name) / "template.db"
    shutil.copy(template(), path)
    url = f"sqlite:///{path}"
    ledger = Ledger.open(url, clock=ManualClock())
    seeded = seed_registry(ledger, cards=CARDS, daily_limit_units=DAILY_LIMIT_UNITS)
    registry = ledger.write_now(lambda connection: _own_keys(connection, seeded, lanes))
    ledger.dispose()
    return path, registry


def _own_keys(connection: Connection, seeded: Registry, lanes: int) -> Registry:
    """Put accounts and lanes with known keys in the place of the seeded ones."""
    made = {"created_at_ms": NOW_MS}
    connection.execute(delete(schema.lanes))
    for number, lane in enumerate(lane_addresses(lanes)):
        row = {"address": lane, "wrapped_key": _wrapped(lane, f"lane {number}"), **made}
        connection.execute(insert(schema.lanes).values(row))
    cards = []
    for number, card in enumerate(seeded.cards):
        account = CARD_ACCOUNTS[number]
        wrapped = _wrapped(account, f"card {number}")
        row = {"address": account, "wrapped_key": wrapped, "balance_units": BALANCE_UNITS, **made}
        connection.execute(insert(schema.accounts).values(row))
        its_row = schema.cards.c.uuid == card.uuid
        connection.execute(update(schema.cards).where(its_row).values(account=account))
        old = schema.accounts.c.address == card.account
        connection.execute(delete(schema.accounts).where(old))
        cards.append(SeededCard(card.uuid, account))
    return replace(seeded, cards=tuple(cards))


def _wrapped(account: str, name: str) -> bytes:
    return CUSTODY._wrap(b"key/" + account.encode(), secret(name))
