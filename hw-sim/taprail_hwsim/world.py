"""The people, cards and shops of a simulated day, and how they get into a gateway's ledger.

Answers for provisioning a state folder once and for finding everything again in it. It uses the
gateway's own registry, as `taprail admin` does; what the *cards* do, they do by their own maths.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from taprail_common.clock import SystemClock
from taprail_common.signing import (
    create_key_file,
    load_key_file,
    public_key_text,
    write_secret_file,
)
from taprail_gateway import issuer, registry
from taprail_gateway.config import GatewaySettings
from taprail_gateway.custody import Custody
from taprail_gateway.directory import SCOPES_OF_ROLE
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.tokens import Tokens
from taprail_hwsim.cards import BankCard, Card, KeycardCash, Ntag21x, Ntag424, ReplayedCard

SINGLE_LIMIT_UNITS: Final = 50_000_000
DAILY_LIMIT_UNITS: Final = 200_000_000
START_BALANCE_UNITS: Final = 1_000_000_000
POOR_BALANCE_UNITS: Final = 500_000
TOKEN_DAYS: Final = 30
TERMINAL_ID: Final = "counter-1"
MERCHANT_ID: Final = "corner-cafe"
SHOP: Final = "Corner Café"
# Where sales are paid to: an address of no key that anybody has, so that only sales reach it.
MERCHANT_ACCOUNT: Final = "0x" + b"corner cafe, paid to".hex()

_SUN_UID_BYTES: Final = 7
_SECRET_BYTES: Final = 32
_NXP: Final = 0x04  # ISO/IEC 7816-6 manufacturer code, the first byte of a 7-byte UID


@dataclass(frozen=True)
class User:
    """Somebody with a login."""

    id: str
    role: str
    jwt: str = field(repr=False)


@dataclass(frozen=True)
class IssuedCard:
    """A card in the ledger. `uid` is hex; it stays in the state folder, and so does the `secret` of
    a card that signs (hex, else empty): whoever sets up a real one never sees it."""

    name: str
    card_uuid: str
    account: str
    user: str
    profile: str
    uid: str = field(repr=False)
    secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class World:
    """Who and what is there."""

    users: list[User]
    merchants: list[dict[str, str]]
    terminals: list[dict[str, str]]
    cards: list[IssuedCard]
    lane: str
    gateway_public_key: str

    def public(self) -> dict[str, Any]:
        """What `taprail-sim up --json` says of it."""
        private = {"uid", "secret"}
        cards = [{k: v for k, v in asdict(card).items() if k not in private} for card in self.cards]
        for card in cards:
            card["cardUuid"] = card.pop("card_uuid")
        return {
            "users": [asdict(user) for user in self.users],
            "merchants": self.merchants,
            "terminals": self.terminals,
            "cards": cards,
        }

    def card(self, name: str) -> IssuedCard:
        """A card by its name; KeyError when there is none."""
        return next(card for card in self.cards if card.name == name)


REGULARS: Final = (
    *("alice", "bob", "carol", "dan", "erin"),
    *("frank", "grace", "heidi", "ivan", "judy", "kim", "leo"),
)
CUSTOMERS: Final = (*REGULARS, "poor", "frozen", "tag", "keycard")
"""Each has one card of the same name; the last four are special: too little money, frozen, an
NTAG21x that has only a UID, and a Keycard that signs."""


def provision(settings: GatewaySettings, terminal_key_file: Path) -> World:
    """Fill an initialised, empty ledger; the terminal's key must exist."""
    now_ms = SystemClock().now_ms()
    custody = Custody.load(settings.master_key_file)
    tokens = Tokens.load(settings.jwt_secret_file)
    device = load_key_file(terminal_key_file, "device key").verify_key
    gateway = load_key_file(settings.key_file, "gateway key").verify_key
    ledger = Ledger.open(settings.database_url, clock=SystemClock())
    try:

        def fill(connection: Any) -> World:
            custody.attach(connection)
            people = [(name, "customer") for name in CUSTOMERS]
            people += [("cafe-owner", "merchant"), ("operator", "operator")]
            for name, role in people:
                registry.add_user(connection, name, name.capitalize(), role, now_ms)
            registry.add_merchant(
                connection,
                MERCHANT_ID,
                "Corner Café",
                MERCHANT_ACCOUNT,
                now_ms,
                user_id="cafe-owner",
            )
            key = public_key_text(device)
            registry.add_terminal(connection, TERMINAL_ID, MERCHANT_ID, key, now_ms)
            cards = [_issue(connection, custody, name, now_ms) for name in CUSTOMERS]
            registry.set_card_status(connection, _uuid("frozen"), "frozen")
            return World(
                users=[
                    User(name, role, _token(tokens, name, role, now_ms)) for name, role in people
                ],
                merchants=[{"id": MERCHANT_ID, "name": SHOP, "account": MERCHANT_ACCOUNT}],
                terminals=[{"id": TERMINAL_ID, "merchantId": MERCHANT_ID}],
                cards=cards,
                lane=registry.ensure_lane(connection, custody, now_ms),
                gateway_public_key=public_key_text(gateway),
            )

        return ledger.write_now(fill)
    finally:
        ledger.dispose()


def _token(tokens: Tokens, name: str, role: str, now_ms: int) -> str:
    return tokens.issue(name, now_ms=now_ms, days=TOKEN_DAYS, scopes=SCOPES_OF_ROLE[role])


def make_device_key(path: Path) -> None:
    """Give the terminal its key, as `taprail terminal init` does on the device."""
    create_key_file(path)


def _issue(connection: Any, custody: Custody, name: str, now_ms: int) -> IssuedCard:
    uid = _new_uid()
    profile = {"tag": "uid", "keycard": "signed"}.get(name, "sun")
    secret = secrets.token_bytes(_SECRET_BYTES) if profile == "signed" else b""
    weak = 10 if profile == "uid" else 1  # what can be copied may not have such limits
    order = registry.CardOrder(
        user_id=name,
        uid=b"" if secret else uid,
        address=KeycardCash(uid, secret).address if secret else None,
        name=name,
        profile=profile,
        single_limit_units=SINGLE_LIMIT_UNITS // weak,
        daily_limit_units=DAILY_LIMIT_UNITS // weak,
        card_uuid=_uuid(name),
    )
    issued = registry.issue_card(connection, custody, order, now_ms)
    account = issued.account
    return IssuedCard(name, issued.card_uuid, account, name, profile, uid.hex(), secret.hex())


def _new_uid() -> bytes:
    return bytes([_NXP]) + secrets.token_bytes(_SUN_UID_BYTES - 1)


def _uuid(name: str) -> str:
    return f"card-{name}"


def start_balances(world: World) -> dict[str, int]:
    """What each account is given on a fresh dev chain, in units."""
    return {
        card.account: POOR_BALANCE_UNITS if card.name == "poor" else START_BALANCE_UNITS
        for card in world.cards
    }


def lanes(settings: GatewaySettings) -> list[str]:
    """The addresses of all wallets that send, as the ledger has them."""
    ledger = Ledger.open(settings.database_url, clock=SystemClock())
    try:
        return ledger.read_now(lambda c: list(c.scalars(select(schema.lanes.c.address))))
    finally:
        ledger.dispose()


def save(world: World, path: Path) -> None:
    """Keep the world in its folder; it holds tokens, so it is for its owner alone."""
    write_secret_file(path, json.dumps(asdict(world), indent=2) + "\n")


def load(path: Path) -> World:
    """Find a world again."""
    stored = json.loads(path.read_text())
    stored["users"] = [User(**user) for user in stored["users"]]
    stored["cards"] = [IssuedCard(**card) for card in stored["cards"]]
    return World(**stored)


class CardBox:
    """The cards on the table, by name. Besides those of `World`:

    `clone` shows what alice's card showed at her last tap; `forged` is bob's number with a key of
    its own; `stranger` is a genuine chip of another issuer, `bank` a contactless bank card.
    """

    def __init__(self, cards: dict[str, Card]) -> None:
        self._cards = cards

    @classmethod
    def of(cls, world: World, settings: GatewaySettings) -> CardBox:
        """The cards with their counters where the ledger last saw them."""
        custody = Custody.load(settings.master_key_file)
        ledger = Ledger.open(settings.database_url, clock=SystemClock())
        try:
            keys = ledger.read_now(lambda c: issuer.load(c, custody))[1]
            counters = ledger.read_now(_sun_counters)
        finally:
            ledger.dispose()

        def genuine(card: IssuedCard, master_key: bytes) -> Ntag424:
            return Ntag424.personalised(
                bytes.fromhex(card.uid),
                master_key,
                sdm_meta_read_key=keys.meta_read_key,
                # Reads that never reached the gateway have advanced the card beyond the ledger.
                counter=counters.get(card.card_uuid, 0) + _UNSEEN_READS,
            )

        cards: dict[str, Card] = {
            card.name: genuine(card, keys.sun_master_key)
            for card in world.cards
            if card.profile == "sun"
        }
        cards["tag"] = Ntag21x(bytes.fromhex(world.card("tag").uid))
        for card in world.cards:
            if card.profile == "signed":
                uid, secret = bytes.fromhex(card.uid), bytes.fromhex(card.secret)
                cards[card.name] = KeycardCash(uid, secret)
        cards["forged"] = genuine(world.card("bob"), bytes(16))
        cards["stranger"] = Ntag424(_new_uid(), bytes(16), bytes(16))
        cards["bank"] = BankCard(_new_uid())
        return cls(cards)

    def names(self) -> list[str]:
        """All names, for people who have to choose one."""
        return [*self._cards, "clone"]

    def __getitem__(self, name: str) -> Card:
        """The card; KeyError when there is none of that name."""
        if name == "clone":
            alice = self._cards["alice"]
            assert isinstance(alice, Ntag424)  # noqa: S101 - as `of` made it
            return ReplayedCard(alice.sun_url(alice.counter).encode(), alice.uid)
        return self._cards[name]


_UNSEEN_READS: Final = 1_000


def _sun_counters(connection: Any) -> dict[str, int]:
    cards = schema.cards.c
    rows = connection.execute(select(cards.uuid, cards.sun_counter))
    return {card_uuid: counter for card_uuid, counter in rows.all()}  # noqa: C416 - typed rows
