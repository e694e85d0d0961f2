"""What signing cards have signed, as the ledger keeps it: written once, never changed.

A payment that came signed has no key here, so this row is all that can ever carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, insert, select

from taprail_gateway.ledger.prepared import prepared
from taprail_gateway.ledger.schema import card_authorizations

_INSERT: Final = prepared(
    insert(card_authorizations), ["payment_id", "valid_before_s", "signature"]
)


@dataclass(frozen=True, slots=True)
class StoredSignature:
    """A card's signature (r, s, v) under one payment, and when it ends."""

    valid_before_s: int
    signature: bytes = field(repr=False)


def store(connection: Connection, signatures: Mapping[str, StoredSignature]) -> None:
    """Keep the signatures of these payments, which are in the ledger already."""
    if not signatures:
        return
    rows = [
        {"payment_id": each, "valid_before_s": it.valid_before_s, "signature": it.signature}
        for each, it in signatures.items()
    ]
    _INSERT.run_each(connection, rows)


def of_payments(connection: Connection, payment_ids: Sequence[str]) -> dict[str, StoredSignature]:
    """The signatures of those of these payments that came signed, by payment."""
    columns = card_authorizations.c
    statement = select(columns.payment_id, columns.valid_before_s, columns.signature).where(
        columns.payment_id.in_(payment_ids)
    )
    return {row[0]: StoredSignature(row[1], row[2]) for row in connection.execute(statement)}
