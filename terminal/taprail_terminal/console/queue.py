"""The queue of sales without an end, for a technician: listed, one of them, all to take along.

Answers for what of a request may be shown. Its body holds the card's proof, for plain tags even the
serial number, so the body itself never leaves: its digest and signature name it without showing it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from taprail_common.clock import rfc3339
from taprail_common.errors import InputError
from taprail_common.money import format_amount
from taprail_terminal.console.answers import EXIT_OK, CommandResult, facts, table
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.look import number
from taprail_terminal.outbox import OutboxRow

_MAX_LISTED: Final = 20
_MAX_ID: Final = 64
MAX_EXPORTED: Final = 40
"""Some 600 bytes each, as text and as data, within `frames.MAX_JSON_BYTES`."""


async def show_list(desk: Desk, _args: Sequence[str]) -> CommandResult:
    """What has no end yet, oldest first."""
    rows = await desk.outbox.unfinished()
    listed = [_brief(desk, row) for row in rows[:_MAX_LISTED]]
    text = table(listed, "nothing waits")
    if len(rows) > _MAX_LISTED:
        text += f"\n{len(rows) - _MAX_LISTED} more: queue export"
    return CommandResult(EXIT_OK, text, {"count": len(rows), "requests": listed})


async def show_one(desk: Desk, args: Sequence[str]) -> CommandResult:
    """All that may be shown of one request."""
    if len(args) != 1 or len(args[0]) > _MAX_ID:
        raise InputError("request", "is missing: queue show REQUEST")
    row = await desk.outbox.find(args[0])
    if row is None:
        raise InputError("request", "is not in the queue")
    return facts(_whole(desk, row))


async def export(desk: Desk, args: Sequence[str]) -> CommandResult:
    """What has no end yet, as evidence: each request's digest with the signature over it; so many
    as an answer holds, from the one with this number on."""
    rows = await desk.outbox.unfinished()
    first = number(args, 0, "from", 1, max(1, len(rows)))
    shown = rows[first - 1 : first - 1 + MAX_EXPORTED]
    requests = [_whole(desk, row) for row in shown]
    following = first + len(shown)
    data = {
        "terminalId": desk.identity.terminal_id,
        "fingerprint": desk.identity.fingerprint,
        "at": rfc3339(desk.clock.now_ms()),
        "count": len(rows),
        "requests": requests,
        "next": following if following <= len(rows) else None,
    }
    return CommandResult(EXIT_OK, json.dumps(data, indent=1), data)


def _brief(desk: Desk, row: OutboxRow) -> dict[str, Any]:
    return {
        "request": row.request_id,
        "state": row.state.value,
        "amount": f"{format_amount(row.amount_units, desk.config.terminal.decimals)}"
        f" {row.currency}",
        "since": rfc3339(row.stored_at_ms),
    }


def _whole(desk: Desk, row: OutboxRow) -> dict[str, Any]:
    return {
        **_brief(desk, row),
        "amountUnits": row.amount_units,
        "cameBack": row.came_back,
        "sha256": hashlib.sha256(row.body).hexdigest(),
        "signature": row.signature,
    }
