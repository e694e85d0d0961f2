"""A lane: the wallet that sends, and why it may have to pause.

A paused lane takes no new payments, but what it has signed goes on being offered to the nodes, in
the order of its nonces. Each pause has its alert, and each ends by itself when its cause is gone:

- `funds`, `permanent` and `wrong_chain`, when nodes take everything again: after a top-up, after a
  no-op has taken the place of what can never run (see `stuck`), when the right node is back;
- `foreign_nonce`, when nothing of the strangers is under way any more: the lane goes on behind
  their nonces. That alert stays until a person has looked: the wallet's key is used elsewhere.
"""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.crash import crash
from taprail_gateway.ledger.alerts import clear_alert, raise_alert
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.nonces import change_pause, skip_nonces
from taprail_gateway.ledger.queries import Lane
from taprail_gateway.settle.chain import SendOutcome
from taprail_gateway.settle.errors import SendClass

PAUSED_ALERT: Final = "lane_paused"
FOREIGN_ALERT: Final = "foreign_nonce"

_log = structlog.get_logger("settle.lanes")


class PauseCause(StrEnum):
    """What a pause is for; the reason in the ledger begins with it."""

    FUNDS = "funds"
    PERMANENT = "permanent"
    WRONG_CHAIN = "wrong_chain"
    FOREIGN_NONCE = "foreign_nonce"


_CAUSES: Final = {
    SendClass.FUNDS: PauseCause.FUNDS,
    SendClass.PERMANENT: PauseCause.PERMANENT,
    SendClass.WRONG_CHAIN: PauseCause.WRONG_CHAIN,
}


def cause_of(lane: Lane) -> PauseCause | None:
    """Why a lane is paused; None: it is not, or by a hand or an older program."""
    cause, _, _text = (lane.paused_because or "").partition(":")
    return PauseCause(cause) if cause in list(PauseCause) else None


async def heed(ledger: Ledger, lane: Lane, lease: Lease, obstacle: SendOutcome | None) -> None:
    """Pause or resume the lane as a broadcast's outcome asks for; None: all was taken."""
    cause = _CAUSES.get(obstacle.meaning) if obstacle is not None else None
    if obstacle is not None and cause is not None:
        await pause(ledger, lane, cause, obstacle.text, lease=lease)
    elif obstacle is None and cause_of(lane) in _CAUSES.values():
        await resume(ledger, lane, lease)


async def pause(ledger: Ledger, lane: Lane, cause: PauseCause, text: str, *, lease: Lease) -> None:
    """Pause the lane and raise the alarm, once: the first cause stands until it is cured."""
    if lane.paused_because is not None:
        return
    because, at_ms = f"{cause}: {text}", ledger.clock.now_ms()
    if await ledger.write(partial(_pause, lease=lease, cause=cause, because=because, at_ms=at_ms)):
        crash("settle.lane_paused")
        _log.error("settle.lane_paused", lane=lane.address, because=because)


async def resume(
    ledger: Ledger, lane: Lane, lease: Lease, *, skip_to_nonce: int | None = None
) -> None:
    """Let a lane send again, if it still is paused for what was read; `skip_to_nonce`: behind the
    nonces that strangers have used."""
    work = partial(
        _resume,
        lease=lease,
        was=lane.paused_because,
        skip_to_nonce=skip_to_nonce,
        at_ms=ledger.clock.now_ms(),
    )
    if await ledger.write(work):
        crash("settle.lane_resumed")
        _log.info("settle.lane_resumed", lane=lane.address, was=lane.paused_because)


def _pause(
    connection: Connection, *, lease: Lease, cause: PauseCause, because: str, at_ms: int
) -> bool:
    if not change_pause(connection, lease, None, because):
        return False
    is_foreign = cause is PauseCause.FOREIGN_NONCE
    kind = FOREIGN_ALERT if is_foreign else PAUSED_ALERT
    text = f"the lane is paused, {because}"
    raise_alert(connection, kind, lease.lane, "error", text, at_ms, needs_review=is_foreign)
    return True


def _resume(
    connection: Connection,
    *,
    lease: Lease,
    was: str | None,
    skip_to_nonce: int | None,
    at_ms: int,
) -> bool:
    if not change_pause(connection, lease, was, None):
        return False
    if skip_to_nonce is not None:
        skip_nonces(connection, lease, skip_to_nonce)
    clear_alert(connection, PAUSED_ALERT, lease.lane, at_ms)
    return True
