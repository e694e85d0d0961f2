"""A lane: the wallet that sends, and why it may have to pause.

A paused lane takes no new payments, but what it has signed goes on being offered to the nodes, in
the order of its nonces. A pause for want of funds, or because a transaction can never run, ends by
itself when a node takes everything again: after a top-up, or after a no-op has taken its place (see
`stuck`). A foreign nonce stays until a person has looked: the wallet's key is used elsewhere.
"""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection, select

from taprail_common.errors import OperatorError
from taprail_gateway.ledger import queries, schema, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.queries import Lane
from taprail_gateway.settle.chain import SendOutcome
from taprail_gateway.settle.errors import SendClass

_log = structlog.get_logger("settle.lanes")


class PauseCause(StrEnum):
    """What a pause is for; the reason in the ledger begins with it."""

    FUNDS = "funds"
    PERMANENT = "permanent"
    FOREIGN_NONCE = "foreign_nonce"


_CAUSES: Final = {
    SendClass.FUNDS: PauseCause.FUNDS,
    SendClass.PERMANENT: PauseCause.PERMANENT,
}


_HEALS: Final = (f"{PauseCause.FUNDS}:", f"{PauseCause.PERMANENT}:")
"""What is over when nodes take everything again: topped up, or replaced by a no-op."""


def the_lane(connection: Connection) -> Lane:
    """The one lane that sends, the first ever created; raises OperatorError when there is none."""
    first = (
        select(schema.lanes.c.address)
        .where(schema.lanes.c.purpose == "payments")
        .order_by(schema.lanes.c.created_at_ms, schema.lanes.c.address)
    )
    address = connection.execute(first.limit(1)).scalar()
    for lane in queries.all_lanes(connection):
        if lane.address == address:
            return lane
    raise OperatorError("the ledger has no lane to send from", fix="create its wallet first")


async def heed(ledger: Ledger, lane: Lane, obstacle: SendOutcome | None) -> None:
    """Pause or resume the lane as a broadcast's outcome asks for; None: all was taken."""
    cause = _CAUSES.get(obstacle.meaning) if obstacle is not None else None
    if obstacle is not None and cause is not None:
        await pause(ledger, lane, cause, obstacle.text)
    elif obstacle is None and (lane.paused_because or "").startswith(_HEALS):
        await ledger.write(partial(transitions.pause_lane, lane=lane.address, because=None))
        _log.info("settle.lane_resumed", lane=lane.address, was=lane.paused_because)


async def pause(ledger: Ledger, lane: Lane, cause: PauseCause, text: str) -> None:
    """Pause the lane and raise the alarm, once: the first cause stands until it is cured."""
    if lane.paused_because is not None:
        return
    because = f"{cause}: {text}"
    await ledger.write(partial(transitions.pause_lane, lane=lane.address, because=because))
    _log.error("settle.lane_paused", lane=lane.address, because=because)
