"""The registry of users, merchants, terminals, cards and lanes: functions on a connection.

Answers for names that fit, for references that exist and for keys that are made and wrapped here.
Whoever calls brings the transaction (`Ledger.write_now`), so that several steps can be one. What is
changed while a gateway runs takes effect at the next tap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection, Table, delete, insert, select, update

from taprail_common import sun
from taprail_common.errors import InputError, OperatorError
from taprail_common.ids import check_identifier, new_id
from taprail_common.money import check_amount
from taprail_common.signing import parse_public_key, public_key_text
from taprail_gateway import issuer
from taprail_gateway.authorize import Profile
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.schema_pairing import terminal_next_keys
from taprail_gateway.proofs import account_bytes

DEFAULT_SINGLE_LIMIT_UNITS: Final = 500_000
DEFAULT_DAILY_LIMIT_UNITS: Final = 2_000_000
"""Limits of a card that is issued without any (public contract)."""

UID_SINGLE_LIMIT_UNITS: Final = 5_000_000
UID_DAILY_LIMIT_UNITS: Final = 20_000_000
"""The most that a card with a serial number alone may ever pay, since anybody can copy it: 5.00 and
20.00 of a token with 6 decimals."""

ROLES: Final = ("customer", "merchant", "operator")
_ADDRESS: Final = re.compile(r"0x[0-9a-f]{40}", re.ASCII)
_UID_LENGTHS: Final = {
    "sun": (sun.UID_BYTES,),
    "uid": (4, 7, 10),  # ISO 14443-3 clause 6.5.4
    "signed": (0,),  # it is known by its address
}
PROFILES: Final = tuple(_UID_LENGTHS)
_NAME_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class CardOrder:
    """A card to be issued. `uid` are the chip's bytes; they are not stored. A card that signs has
    an `address` instead, of the key that it alone has."""

    user_id: str
    uid: bytes = field(default=b"", repr=False)
    address: str | None = None
    name: str = ""
    profile: str = "sun"
    single_limit_units: int = DEFAULT_SINGLE_LIMIT_UNITS
    daily_limit_units: int = DEFAULT_DAILY_LIMIT_UNITS
    time_zone: str = "UTC"
    card_uuid: str | None = None
    expires_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class IssuedCard:
    """What was issued; `account` is the address to fund."""

    card_uuid: str
    account: str
    key_version: int


# --- lanes ----------------------------------------------------------------------------------------


def ensure_lane(connection: Connection, custody: Custody, now_ms: int) -> str:
    """Make a sending wallet when there is none; gives the address of the oldest."""
    lanes = schema.lanes
    oldest = connection.scalar(
        select(lanes.c.address).order_by(lanes.c.created_at_ms, lanes.c.address)
    )
    if oldest is not None:
        return str(oldest)
    return add_lane(connection, custody, "payments", now_ms)


def add_lane(connection: Connection, custody: Custody, purpose: str, now_ms: int) -> str:
    """Make one more sending wallet, for `payments` or `rewards`; its address."""
    address, wrapped = custody.new_key()
    row = {"address": address, "wrapped_key": wrapped, "created_at_ms": now_ms}
    connection.execute(insert(schema.lanes).values(**row, purpose=purpose))
    return address


# --- users, merchants, terminals ------------------------------------------------------------------


def add_user(connection: Connection, user_id: str, name: str, role: str, now_ms: int) -> None:
    """Add a user; raises OperatorError when the id is taken."""
    check_identifier("user", user_id)
    if role not in ROLES:
        raise InputError("role", f"must be one of {', '.join(ROLES)}")
    row = {"id": user_id, "name": _name(name), "role": role, "created_at_ms": now_ms}
    _add(connection, schema.users, "user", row)


def add_merchant(
    connection: Connection,
    merchant_id: str,
    name: str,
    account: str,
    now_ms: int,
    *,
    user_id: str | None = None,
) -> None:
    """Add a merchant, paid to `account`; `user_id` may see its sales."""
    check_identifier("merchant", merchant_id)
    if user_id is not None:
        require(connection, schema.users, "user", user_id)
    row = {
        "id": merchant_id,
        "name": _name(name),
        "account": _address(account),
        "status": "active",
        "user_id": user_id,
        "created_at_ms": now_ms,
    }
    _add(connection, schema.merchants, "merchant", row)


def add_terminal(
    connection: Connection,
    terminal_id: str,
    merchant_id: str,
    public_key: str,
    now_ms: int,
    *,
    name: str = "",
) -> None:
    """Add a terminal of a merchant; its key is 64 hex digits."""
    check_identifier("terminal", terminal_id)
    require(connection, schema.merchants, "merchant", merchant_id)
    row = {
        "id": terminal_id,
        "merchant_id": merchant_id,
        "name": _name(name or terminal_id),
        "public_key": public_key_text(parse_public_key(public_key)),
        "status": "active",
        "created_at_ms": now_ms,
    }
    _add(connection, schema.terminals, "terminal", row)


def pair_terminal(
    connection: Connection,
    terminal_id: str,
    merchant_id: str,
    public_key: str,
    name: str,
    now_ms: int,
) -> None:
    """Add a terminal, or give one that is there to another device: only its key is good then."""
    values = {"public_key": public_key, "name": _name(name), "status": "active"}
    connection.execute(
        delete(terminal_next_keys).where(terminal_next_keys.c.terminal_id == terminal_id)
    )
    changed = connection.execute(
        update(schema.terminals).where(schema.terminals.c.id == terminal_id).values(values)
    )
    if changed.rowcount == 0:
        add_terminal(connection, terminal_id, merchant_id, public_key, now_ms, name=name)


def set_merchant_status(connection: Connection, merchant_id: str, status: str) -> None:
    """Close a merchant's account (`closed`) or open it again (`active`)."""
    _change(connection, schema.merchants, "merchant", merchant_id, {"status": status})


def revoke_terminal(connection: Connection, terminal_id: str) -> None:
    """Take no more payments of a terminal."""
    _change(connection, schema.terminals, "terminal", terminal_id, {"status": "revoked"})


# --- cards ----------------------------------------------------------------------------------------


def issue_card(
    connection: Connection, custody: Custody, order: CardOrder, now_ms: int
) -> IssuedCard:
    """Issue a prepaid card with a new account in custody, or note one that signs for its own.

    Raises OperatorError or InputError.
    """
    require(connection, schema.users, "user", order.user_id)
    _check_order(order)
    own = None if order.address is None else _address(order.address)
    digest = _new_digest(connection, custody, order.uid if own is None else account_bytes(own))
    account, wrapped = custody.new_key() if own is None else (own, None)
    opened = {"address": account, "wrapped_key": wrapped, "created_at_ms": now_ms}
    _add(connection, schema.accounts, "account", opened)
    return _enter(connection, custody, order, digest, account, now_ms)


def issue_card_on(
    connection: Connection, custody: Custody, order: CardOrder, account: str, now_ms: int
) -> IssuedCard:
    """Issue a card that spends from an account in custody that is there already."""
    _check_order(order)
    digest = _new_digest(connection, custody, order.uid)
    return _enter(connection, custody, order, digest, account, now_ms)


def _new_digest(connection: Connection, custody: Custody, named_by: bytes) -> str:
    digest = custody.uid_digest(named_by)
    cards = schema.cards
    if connection.scalar(select(cards.c.uuid).where(cards.c.uid_digest == digest)) is not None:
        raise OperatorError("this card was issued before", fix="use another card", code="exists")
    return digest


def _enter(
    connection: Connection,
    custody: Custody,
    order: CardOrder,
    digest: str,
    account: str,
    now_ms: int,
) -> IssuedCard:
    version = issuer.ensure(connection, custody, now_ms)
    card_uuid = order.card_uuid or new_id("card")
    row = {
        "uuid": check_identifier("card", card_uuid),
        "name": _name(order.name or f"Card of {order.user_id}"),
        "profile": order.profile,
        "uid_digest": digest,
        "user_id": order.user_id,
        "account": account,
        "status": "active",
        "single_limit_units": order.single_limit_units,
        "daily_limit_units": order.daily_limit_units,
        "time_zone": order.time_zone,
        "key_version": version,
        "created_at_ms": now_ms,
        "expires_at_ms": order.expires_at_ms,
    }
    _add(connection, schema.cards, "card", row)
    return IssuedCard(card_uuid, account, version)


def set_card_status(connection: Connection, card_uuid: str, status: str) -> None:
    """Freeze (`frozen`) or thaw (`active`) a card; OperatorError for one that was replaced."""
    c = schema.cards.c
    successor = connection.scalar(select(c.replaced_by).where(c.uuid == card_uuid))
    if successor is not None:
        raise OperatorError(
            f"card {card_uuid!r} was replaced for good",
            fix=f"its account has {successor} now",
            code="wrong_state",
        )
    _change(connection, schema.cards, "card", card_uuid, {"status": status})


def set_card_limits(
    connection: Connection,
    card_uuid: str,
    *,
    single_limit_units: int | None = None,
    daily_limit_units: int | None = None,
) -> None:
    """Set the limits that are given; the others stay."""
    column = schema.cards.c
    profile = connection.scalar(select(column.profile).where(column.uuid == card_uuid))
    if profile == Profile.UID:
        _check_weak(single_limit_units or 0, daily_limit_units or 0)
    limits = {"single_limit_units": single_limit_units, "daily_limit_units": daily_limit_units}
    values = {name: check_amount(units) for name, units in limits.items() if units is not None}
    if not values:
        raise InputError("limits", "give at least one")
    _change(connection, schema.cards, "card", card_uuid, values)


# --- what they share ------------------------------------------------------------------------------


def require(connection: Connection, table: Table, what: str, name: str) -> None:
    """Raise OperatorError naming what does not exist."""
    key = next(iter(table.primary_key.columns))
    if connection.scalar(select(key).where(key == name)) is None:
        raise OperatorError(
            f"there is no {what} {name!r}", fix=f"see `taprail admin {what} list`", code="not_found"
        )


def _add(connection: Connection, table: Table, what: str, row: Mapping[str, Any]) -> None:
    key = next(iter(table.primary_key.columns))
    name = row[key.name]
    if connection.scalar(select(key).where(key == name)) is not None:
        raise OperatorError(
            f"{what} {name!r} exists already", fix="choose another id", code="exists"
        )
    connection.execute(insert(table).values(row))


def _change(
    connection: Connection, table: Table, what: str, name: str, values: Mapping[str, Any]
) -> None:
    require(connection, table, what, name)
    key = next(iter(table.primary_key.columns))
    connection.execute(update(table).where(key == name).values(values))


def _check_order(order: CardOrder) -> None:
    if order.profile not in PROFILES:
        raise InputError("profile", f"must be one of {', '.join(PROFILES)}")
    signs = order.profile == Profile.SIGNED
    if signs != (order.address is not None):
        raise InputError("address", "belongs to a card that signs, and to no other")
    if len(order.uid) not in _UID_LENGTHS[order.profile]:
        raise InputError("uid", f"has not the length of a {order.profile} card's")
    if order.profile == Profile.UID:
        _check_weak(order.single_limit_units, order.daily_limit_units)
    check_amount(order.single_limit_units)
    check_amount(order.daily_limit_units)
    check_time_zone(order.time_zone)


def check_time_zone(name: str) -> None:
    """Raise InputError for a time zone that is not known here."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise InputError("time_zone", "is not known; write it like Europe/Berlin") from exc


def _check_weak(single_limit_units: int, daily_limit_units: int) -> None:
    """Raise InputError for limits beyond what a card that can be copied may have."""
    if single_limit_units > UID_SINGLE_LIMIT_UNITS or daily_limit_units > UID_DAILY_LIMIT_UNITS:
        raise InputError(
            "limits",
            "are too high for a card that can be copied: at most"
            f" {UID_SINGLE_LIMIT_UNITS} units at once and {UID_DAILY_LIMIT_UNITS} a day",
        )


def _name(text: str) -> str:
    if not 1 <= len(text.strip()) <= _NAME_CHARACTERS or not text.isprintable():
        raise InputError("name", f"must be 1 to {_NAME_CHARACTERS} printable characters")
    return text.strip()


def _address(text: str) -> str:
    address = text.lower()
    if _ADDRESS.fullmatch(address) is None or int(address, 16) == 0:
        raise InputError("account", "must be 0x and 40 hex digits, and not zero")
    return address
