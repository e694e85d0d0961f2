"""The issuer's keys, of which those of its SUN cards are made: their versions, in the ledger.

A card has the keys of one version, which its row names. A new version is for cards that are issued
from then on; all others go on with theirs until they are personalized again. None is ever deleted
here: a card that lies in a drawer may come back. A gateway that meets a proof which holds by no key
that it knows looks whether there is a newer version, so nobody has to tell it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, func, insert, select

from taprail_common import sun
from taprail_common.errors import OperatorError
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.proofs import IssuerKeys, ProofReader

MAX_VERSION: Final = 0xFF
"""A chip tells the version of its keys in one byte."""

_AES_KEY_BYTES: Final = 16
_k = schema.issuer_keys.c


@dataclass(frozen=True, slots=True)
class CardKeys:
    """What is written into a card when it is personalised: AES-128 keys. Never logged."""

    meta_read_key: bytes = field(repr=False)
    file_read_key: bytes = field(repr=False)


def newest(connection: Connection) -> int | None:
    """The version that new cards get; None before there is any."""
    found = connection.scalar(select(func.max(_k.version)))
    return None if found is None else int(found)


def ensure(connection: Connection, custody: Custody, now_ms: int) -> int:
    """Make the first version when there is none; gives the newest."""
    version = newest(connection)
    return add(connection, custody, now_ms) if version is None else version


def add(connection: Connection, custody: Custody, now_ms: int) -> int:
    """Make one more version, for cards from now on; gives its number. Raises OperatorError."""
    version = (newest(connection) or 0) + 1
    if version > MAX_VERSION:
        raise OperatorError(
            f"a card can tell {MAX_VERSION} versions of keys apart, and all are used",
            fix="begin a new ledger",
        )
    row = {
        "version": version,
        "wrapped_sun_master_key": _new_key(custody, sun_key_name(version)),
        "wrapped_meta_read_key": _new_key(custody, meta_key_name(version)),
        "created_at_ms": now_ms,
    }
    connection.execute(insert(schema.issuer_keys).values(row))
    return version


def load(connection: Connection, custody: Custody) -> dict[int, IssuerKeys]:
    """All versions, unwrapped."""
    rows = connection.execute(
        select(_k.version, _k.wrapped_sun_master_key, _k.wrapped_meta_read_key)
    )
    return {
        version: IssuerKeys(
            custody.unwrap_secret(sun_key_name(version), sun_key),
            custody.unwrap_secret(meta_key_name(version), meta_key),
        )
        for version, sun_key, meta_key in rows
    }


async def learn_newer(ledger: Ledger, custody: Custody, proofs: ProofReader) -> bool:
    """Let a reader of proofs know of versions that were made since it began; whether there are."""
    version = await ledger.read(newest)
    if version is None or version <= proofs.newest_version:
        return False
    proofs.learn(await ledger.read(lambda connection: load(connection, custody)))
    return True


def card_keys(keys: Mapping[int, IssuerKeys], key_version: int, uid: bytes) -> CardKeys:
    """The keys to personalise a card with; `keys` as `load` gives them."""
    issuer = keys[key_version]
    return CardKeys(issuer.meta_read_key, sun.diversify(issuer.sun_master_key, uid))


def sun_key_name(version: int) -> str:
    """Under which custody wraps the key that cards' own keys are made from."""
    return f"issuer/{version}/sun-master"


def meta_key_name(version: int) -> str:
    """Under which custody wraps the key that cards' PICC data is read by."""
    return f"issuer/{version}/meta-read"


def _new_key(custody: Custody, name: str) -> bytes:
    return custody.wrap_secret(name, secrets.token_bytes(_AES_KEY_BYTES))
