"""Keeps the gateway told of what technicians changed, and the list of technicians young.

Answers for trying again: a change leaves the journal's queue only when the gateway has signed that
it has it. Who was revoked is out within a minute where there is a network: each greeting names the
list that holds.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from taprail_common.errors import InputError, LinkError, PartError, SignatureError
from taprail_common.signing import Domain
from taprail_common.technicians import CHANGES_PATH, Changes, ChangesKept
from taprail_common.wire import MAX_BODY_BYTES, parse
from taprail_terminal.console.journal import Journal
from taprail_terminal.console.technicians import Technicians
from taprail_terminal.gateway_link import GatewayLink

RETRY_S: Final = 30.0
REFRESH_S: Final = 3600.0

_log = structlog.get_logger()


async def keep_in_step(link: GatewayLink, journal: Journal, technicians: Technicians) -> None:
    """Until cancelled."""
    refresh_at_s = 0.0
    loop = asyncio.get_running_loop()
    while True:
        journal.changed.clear()
        told = None if link.greeting is None else link.greeting.hello.technicians_revision
        is_due = loop.time() >= refresh_at_s or not await technicians.has(told)
        if is_due and await technicians.refresh():
            refresh_at_s = loop.time() + REFRESH_S
        try:
            await tell_changes(link, journal)
        except (LinkError, SignatureError, InputError, PartError) as exc:
            _log.debug("changes are not told yet", reason=str(exc)[:200])
        try:
            async with asyncio.timeout(RETRY_S):
                await journal.changed.wait()
        except TimeoutError:
            continue


async def tell_changes(link: GatewayLink, journal: Journal) -> None:
    """Tell the gateway all that it does not have. Raises what went wrong."""
    while (changes := await journal.untold()) is not None:
        changes, body = _fitting(changes)
        answer = await link.tell(CHANGES_PATH, body, Domain.CHANGES)
        kept = parse(ChangesKept, answer)
        if kept.journal != changes.journal or kept.up_to < changes.changes[0].seq:
            raise LinkError("the gateway has kept something else")
        await journal.mark_told(kept.up_to)


def _fitting(changes: Changes) -> tuple[Changes, bytes]:
    """As many of the oldest as one request holds; a single one always fits."""
    while True:
        body = changes.model_dump_json(by_alias=True).encode()
        if len(body) <= MAX_BODY_BYTES:
            return changes, body
        half = changes.changes[: len(changes.changes) // 2]
        changes = changes.model_copy(update={"changes": half})
