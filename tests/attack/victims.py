"""The shop that is attacked: cards of every sort, terminals of three merchants, one of them closed.

The cards' taps are the simulator's and eth_account's; nothing here borrows the gateway's maths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from eth_account import Account
from eth_account.signers.local import LocalAccount
from nacl.signing import SigningKey
from sqlalchemy import Connection, update

from taprail_common.signing import public_key_text
from taprail_gateway import issuer, registry
from taprail_gateway.fraud_settings import FraudSettings
from taprail_gateway.ledger import schema, transitions
from taprail_gateway.registry import CardOrder
from taprail_hwsim.cards import Ntag424
from tests.attack.letters import Proof
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TestGateway

NEVER_SUSPICIOUS: Final = FraudSettings(decline_points=1_000_000, alert_points=1_000_000)
"""Thousands of attacks on a few cards would set off every rule; each has tests of its own."""

BESIDE: Final = "counter-2"
"""Another terminal of the same merchant, in the attacker's hand as well."""
BAKERY: Final = "bakery"
BAKERY_TERMINAL: Final = "bakery-1"
REVOKED_TERMINAL: Final = "counter-3"
CLOSED: Final = "closed"
CLOSED_TERMINAL: Final = "closed-1"
ACCOUNTS: Final = {
    MERCHANT: "0x" + "c0ffee" * 6 + "0001",
    BAKERY: "0x" + "ba" * 20,
    CLOSED: "0x" + "c1" * 20,
}

SINGLE: Final = 1_000_000
PLENTY: Final = 10**15
TIGHT: Final = 1_000
"""A day's limit, and a balance, that one payment uses up."""

STRANGER: Final = Ntag424(bytes.fromhex("04DEADBEEF0001"), b"S" * 16, b"T" * 16)
"""A card of another issuer."""


@dataclass
class Victim:
    """A card, and what the model knows of it. `sort` is its profile, or what is wrong with it."""

    sort: str
    uuid: str
    account: str
    uid: bytes
    chip: Ntag424 | None = None
    signer: LocalAccount | None = None
    tapped: int = 0
    used: int = 0
    """The highest tap that the gateway must have noted."""
    paid_units: int = 0

    def tap(self) -> tuple[Proof, int]:
        """The proof of a fresh tap, encrypted, and its counter."""
        self.tapped += 1
        picc, mac = self._chip.sun_proof(self.tapped)
        return {"profile": "sun", "piccData": picc, "mac": mac}, self.tapped

    def as_plain(self, counter: int) -> Proof:
        """The same tap as a card says it that mirrors in plain text."""
        mac = self._chip.sun_proof(counter)[1]
        told = {"uid": self.uid.hex().upper(), "readCounter": f"{counter:06X}"}
        return {"profile": "sun_plain", **told, "mac": mac}

    @property
    def _chip(self) -> Ntag424:
        if self.chip is None:
            raise AssertionError(f"a {self.sort} card has no taps")
        return self.chip


SORTS: Final[dict[str, dict[str, Any]]] = {
    "sun": {},
    "signed": {"profile": "signed"},
    "uid": {"profile": "uid", "daily_limit_units": registry.UID_DAILY_LIMIT_UNITS},
    "frozen": {"status": "frozen"},
    "expired": {"status": "expired"},
    "outlived": {"expires_at_ms": 1},
    "tight": {"daily_limit_units": TIGHT},
    "poor": {"balance_units": TIGHT},
    "replaced": {"key_version": 2},
}
"""What is asked for of each sort, and what becomes of it afterwards."""

_LATER: Final = {"status", "key_version", "expires_at_ms"}


@dataclass
class Shop:
    """The gateway and all that can be used against it."""

    gateway: TestGateway
    keys: dict[str, SigningKey] = field(default_factory=dict)
    cards: dict[str, list[Victim]] = field(default_factory=dict)

    @classmethod
    def open(cls, gateway: TestGateway, cards_of_a_sort: int = 8) -> Shop:
        """Fill a new ledger. It is noon, so that no campaign meets a midnight."""
        noon = datetime.now(UTC).replace(hour=12)
        gateway.clock.ahead_ms = int(noon.timestamp() * 1000) - gateway.now_ms()
        shop = cls(gateway, {TERMINAL: gateway.terminal_key})
        gateway.ledger.write_now(shop._add_terminals)
        for number, (sort, wanted) in enumerate(SORTS.items()):
            make = partial(shop._issue, sort, wanted, number, cards_of_a_sort)
            shop.cards[sort] = gateway.ledger.write_now(make)
        return shop

    @property
    def victims(self) -> Sequence[Victim]:
        return [card for cards in self.cards.values() for card in cards]

    def add_terminal(self, name: str, merchant: str = MERCHANT) -> str:
        """One more terminal in the attacker's hand."""
        self.gateway.ledger.write_now(partial(self._add_terminal, name=name, merchant=merchant))
        return name

    def have_mercy(self) -> None:
        """Undo everything that an honest decline may have rested on, and set the clock back."""
        self.gateway.ledger.write_now(_amnesty)
        self.gateway.clock.ahead_ms -= 20_000

    def _add_terminals(self, connection: Connection) -> None:
        now_ms = self.gateway.now_ms()
        for merchant in (BAKERY, CLOSED):
            registry.add_merchant(connection, merchant, merchant, ACCOUNTS[merchant], now_ms)
        for terminal, merchant in (
            (BESIDE, MERCHANT),
            (BAKERY_TERMINAL, BAKERY),
            (REVOKED_TERMINAL, MERCHANT),
            (CLOSED_TERMINAL, CLOSED),
        ):
            self._add_terminal(connection, terminal, merchant)
        registry.revoke_terminal(connection, REVOKED_TERMINAL)
        closed = update(schema.merchants).where(schema.merchants.c.id == CLOSED)
        connection.execute(closed.values(status="closed"))

    def _add_terminal(self, connection: Connection, name: str, merchant: str) -> None:
        key = self.keys.setdefault(name, SigningKey.generate())
        public_key = public_key_text(key.verify_key)
        registry.add_terminal(connection, name, merchant, public_key, self.gateway.now_ms())

    def _issue(
        self,
        sort: str,
        wanted: dict[str, Any],
        number: int,
        count: int,
        connection: Connection,
    ) -> list[Victim]:
        return [
            self._card(connection, sort, wanted, bytes([4, 0xA0, number, 0, 0, 0, place]))
            for place in range(count)
        ]

    def _card(
        self, connection: Connection, sort: str, wanted: dict[str, Any], uid: bytes
    ) -> Victim:
        order = {"single_limit_units": SINGLE, "daily_limit_units": PLENTY, **wanted}
        balance_units = order.pop("balance_units", PLENTY)
        later = {name: order.pop(name) for name in _LATER & order.keys()}
        signer = Account.create() if order.get("profile") == "signed" else None
        order |= {"uid": uid} if signer is None else {"address": signer.address}
        custody, now_ms = self.gateway.custody, self.gateway.now_ms()
        issued = registry.issue_card(connection, custody, CardOrder("alice", **order), now_ms)
        transitions.refresh_balances(connection, {issued.account: balance_units}, 1)
        if later:
            c = schema.cards.c
            row = update(schema.cards).where(c.uuid == issued.card_uuid)
            connection.execute(row.values(**later))
        card = Victim(sort, issued.card_uuid, issued.account, uid, signer=signer)
        if order.get("profile", "sun") == "sun":
            keys = issuer.card_keys(issuer.load(connection, custody), 1, uid)
            card.chip = Ntag424(uid, keys.meta_read_key, keys.file_read_key)
        return card


def _amnesty(connection: Connection) -> None:
    cards = update(schema.cards).values(status="active", key_version=1, expires_at_ms=None)
    cards = cards.values(single_limit_units=PLENTY, daily_limit_units=PLENTY)
    connection.execute(cards)
    connection.execute(update(schema.terminals).values(status="active"))
    connection.execute(update(schema.merchants).values(status="active"))
    connection.execute(update(schema.accounts).values(balance_units=PLENTY))
