"""Pairing codes in the ledger: made, tried, used once. Functions on a connection.

Answers for their bounds: a code lives ten minutes at most, is tried five times at most, right or
wrong, and belongs to the first device that knew it; that one alone may ask again for the answer,
should it have been lost. Of the code only a hash is kept (see `taprail_common.pairing` for why that
is enough). Everything that becomes of a code is on record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, delete, insert, or_, select, update

from taprail_common.errors import InputError, OperatorError
from taprail_common.ids import check_identifier
from taprail_common.pairing import Code
from taprail_common.signing import fingerprint, parse_public_key
from taprail_gateway import registry
from taprail_gateway.ledger import actions, schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.schema_pairing import pairings

MAX_MINUTES: Final = 10
MAX_TRIES: Final = 5

_p = pairings.c


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which terminal a code is for; a merchant is named unless the terminal has one."""

    terminal_id: str
    merchant_id: str | None = None
    name: str = ""
    minutes: int = MAX_MINUTES


@dataclass(frozen=True, slots=True)
class Open:
    """A code that is being tried, and what it is for."""

    name: str
    proof_key: bytes = field(repr=False)
    terminal_id: str
    merchant_id: str
    terminal_name: str


def offer(connection: Connection, code: Code, proof_key: bytes, wanted: Wanted, by: By) -> int:
    """Take a new code; gives when it expires. Raises OperatorError or InputError."""
    check_identifier("terminal", wanted.terminal_id)
    if not 1 <= wanted.minutes <= MAX_MINUTES:
        raise InputError("minutes", f"must be 1 to {MAX_MINUTES}")
    merchant_id, name = _place(connection, wanted)
    # One code for a terminal: the last one that was made. And what has expired is of no use.
    old = or_(_p.expires_at_ms < by.at_ms, _p.terminal_id == wanted.terminal_id)
    connection.execute(delete(pairings).where(old))
    expires_at_ms = by.at_ms + wanted.minutes * 60_000
    connection.execute(
        insert(pairings).values(
            name=code.name,
            proof_key=proof_key.hex(),
            terminal_id=wanted.terminal_id,
            merchant_id=merchant_id,
            terminal_name=name,
            actor=by.actor,
            expires_at_ms=expires_at_ms,
            tries_left=MAX_TRIES,
        )
    )
    actions.note(connection, "offer-pairing", wanted.terminal_id, by, after=merchant_id)
    return expires_at_ms


def _place(connection: Connection, wanted: Wanted) -> tuple[str, str]:
    """The merchant and the name that the terminal has, or is to have."""
    t = schema.terminals.c
    row = connection.execute(
        select(t.merchant_id, t.name).where(t.id == wanted.terminal_id)
    ).one_or_none()
    if row is not None and wanted.merchant_id not in {None, row.merchant_id}:
        raise OperatorError(
            f"terminal {wanted.terminal_id!r} is of merchant {row.merchant_id!r}",
            fix="choose another id, or leave --merchant out to pair it anew",
            code="exists",
        )
    if row is None and wanted.merchant_id is None:
        raise InputError("merchant", "must be named for a terminal that is new")
    merchant_id = row.merchant_id if row is not None else str(wanted.merchant_id)
    registry.require(connection, schema.merchants, "merchant", merchant_id)
    return merchant_id, wanted.name or (wanted.terminal_id if row is None else row.name)


def spend(connection: Connection, name: str, now_ms: int) -> Open | None:
    """Spend one try on a code; None when there is none of this name, or no try left."""
    taken = connection.execute(
        update(pairings)
        .where(_p.name == name, _p.expires_at_ms >= now_ms, _p.tries_left > 0)
        .values(tries_left=_p.tries_left - 1)
    )
    if taken.rowcount != 1:
        return None
    row = connection.execute(select(pairings).where(_p.name == name)).one()
    return Open(
        name, bytes.fromhex(row.proof_key), row.terminal_id, row.merchant_id, row.terminal_name
    )


def refuse(connection: Connection, code: Open, now_ms: int) -> None:
    """Put on record that somebody did not know a code."""
    actions.note(connection, "refuse-pairing", code.terminal_id, _by(code, now_ms))


def bind(connection: Connection, code: Open, public_key: str, now_ms: int) -> bool:
    """Pair the device of this key, which knows the code; False when another one was before."""
    used = connection.execute(
        update(pairings)
        .where(_p.name == code.name, _p.public_key.is_(None))
        .values(public_key=public_key)
    )
    if used.rowcount != 1:
        return used_by(connection, code.name) == public_key
    registry.pair_terminal(
        connection, code.terminal_id, code.merchant_id, public_key, code.terminal_name, now_ms
    )
    shown = fingerprint(parse_public_key(public_key))
    by = _by(code, now_ms)
    actions.note(connection, "pair-terminal", code.terminal_id, by, after=shown)
    return True


def used_by(connection: Connection, name: str) -> str | None:
    """The public key of the device that used a code; None when nobody has."""
    return connection.scalar(select(_p.public_key).where(_p.name == name))


def _by(code: Open, now_ms: int) -> By:
    return By(f"terminal:{code.terminal_id}", now_ms)
