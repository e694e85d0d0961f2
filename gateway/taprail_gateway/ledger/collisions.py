"""Run work in one transaction, and again when another gateway's transaction was in its way.

PostgreSQL undoes one of two transactions that wait for each other, whole and without a trace. That
is no failure of the storage: the work is run again, a bounded number of times. SQLite has one
writer at a time and knows nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection, Engine

from taprail_gateway.ledger.errors import is_collision

MAX_RUNS: Final = 4
"""Of one piece of work. PostgreSQL notices a deadlock after a second, so this is some seconds."""

_log = structlog.get_logger("ledger")
_T = TypeVar("_T")


def in_transaction(
    engine: Engine,
    work: Callable[[Connection], _T],
    *,
    again: Callable[[BaseException], bool] = is_collision,
) -> _T:
    """Do work and commit it; run it `again` after such an error, and at last raise the error."""
    for run in range(1, MAX_RUNS):
        try:
            return _once(engine, work)
        except Exception as exc:
            if not again(exc):
                raise
            _log.info("ledger.run_again", run=run, error=type(exc).__name__)
    return _once(engine, work)


def _once(engine: Engine, work: Callable[[Connection], _T]) -> _T:
    with engine.begin() as connection:
        return work(connection)
