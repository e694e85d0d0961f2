"""Where things in the ledger stand on the chain, and what is taken back when such a block is gone.

A payment that is completed stands in the block that paid it, a transaction that is final in the
block at which that was concluded. Only the lanes of one gateway are asked for at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, select, update

from taprail_common.payment_state import PaymentEvent
from taprail_gateway.ledger.alerts import raise_alerts
from taprail_gateway.ledger.schema import (
    chain_transactions,
    payment_is_completed,
    payments,
    transaction_is_final,
)
from taprail_gateway.ledger.transitions import apply

REORG_ALERT: Final = "reorg"
"""The kind of the alert about a payment that was told of as paid and is no more; its id."""

_ROWS_PER_STATEMENT: Final = 1_000
_GONE: Final = "the block that held it is gone"
_p = payments.c
_t = chain_transactions.c


class Standing(NamedTuple):
    """A block on which something in the ledger stands."""

    number: int
    block_hash: str


def standings_below(connection: Connection, lane: str, *, below: int, limit: int) -> list[Standing]:
    """The blocks under this number on which anything of a lane stands, the newest first."""
    # Each part by itself, so that each goes through its own index and stops at its bound.
    found = {
        *paid_below(connection, lane, below, limit),
        *paid_below(connection, None, below, limit),
        *finished_below(connection, lane, below, limit),
    }
    return sorted(found, reverse=True)[:limit]


def paid_below(connection: Connection, lane: str | None, below: int, limit: int) -> list[Standing]:
    """Of those, the blocks that completed payments.

    What a stranger paid before any lane had claimed it (None) is everybody's.
    """
    statement = (
        select(_p.block_number, _p.block_hash)
        .where(payment_is_completed, _is(lane), _p.block_number < below)
        .distinct()
        .order_by(_p.block_number.desc())
        .limit(limit)
    )
    return [Standing(*row) for row in connection.execute(statement)]


def finished_below(connection: Connection, lane: str, below: int, limit: int) -> list[Standing]:
    """Of those, the blocks at which transactions were final."""
    statement = (
        select(_t.block_number, _t.block_hash)
        .where(
            transaction_is_final,
            _t.lane == lane,
            _t.block_number < below,
            _t.block_hash.is_not(None),
        )
        .distinct()
        .order_by(_t.block_number.desc())
        .limit(limit)
    )
    return [Standing(*row) for row in connection.execute(statement)]


def take_back(connection: Connection, lane: str, gone: Sequence[Standing], at_ms: int) -> list[str]:
    """Undo what stood in these blocks; the payments that are no longer paid.

    Their transactions are open again, and so are those that were final there: the stored bytes are
    offered to the nodes as before, and what they did is judged anew.
    """
    lost: dict[str, int | None] = {}
    for standing in gone:
        lost |= paid_in(connection, lane, standing) | paid_in(connection, None, standing)
        here = (_t.block_number == standing.number) & (_t.block_hash == standing.block_hash)
        _reopen(connection, (_t.lane == lane) & here)
    bound = {payment: row for payment, row in lost.items() if row is not None}
    rows = sorted(set(bound.values()))
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        _reopen(connection, _t.id.in_(rows[start : start + _ROWS_PER_STATEMENT]))
    unbound = [payment for payment, row in lost.items() if row is None]
    apply(connection, PaymentEvent.REORG, list(bound), at_ms, detail=_GONE)
    apply(connection, PaymentEvent.REORG_UNBOUND, unbound, at_ms, detail=_GONE)
    texts = [(payment, f"{_GONE}: it was told of as paid, and is sent again") for payment in lost]
    raise_alerts(connection, REORG_ALERT, texts, "error", at_ms)
    return list(lost)


def is_finished(connection: Connection, lane: str, nonce: int) -> bool:
    """Whether the ledger calls the lane's transaction with this nonce final."""
    wanted = select(_t.id).where(_t.lane == lane, _t.nonce == nonce, transaction_is_final)
    return connection.execute(wanted).first() is not None


def reopen_from(connection: Connection, lane: str, nonce: int) -> None:
    """Have a lane's transactions from this nonce on offered to the nodes and judged again."""
    _reopen(connection, (_t.lane == lane) & (_t.nonce >= nonce))


def paid_in(connection: Connection, lane: str | None, standing: Standing) -> dict[str, int | None]:
    """A lane's payments that a block completed, and the transaction that each was in last."""
    statement = select(_p.id, _p.chain_transaction_id).where(
        payment_is_completed,
        _is(lane),
        _p.block_number == standing.number,
        _p.block_hash == standing.block_hash,
    )
    return {str(row[0]): row[1] for row in connection.execute(statement)}


def _is(lane: str | None) -> ColumnElement[bool]:
    return _p.lane.is_(None) if lane is None else _p.lane == lane


def _reopen(connection: Connection, which: ColumnElement[bool]) -> None:
    statement = update(chain_transactions).where(transaction_is_final, which)
    connection.execute(statement.values(status="broadcast", block_number=None, block_hash=None))
