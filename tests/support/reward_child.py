"""Settles and rewards in a process of its own, which a crash point may end: `python -m …`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sqlalchemy import Connection

from taprail_common.clock import SystemClock
from taprail_gateway.callbacks.kinds import dispatching
from taprail_gateway.config import GatewaySettings
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import mints, outbox, queries
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.connect import connect
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.wakeups import Wakeups

LOOK_EVERY_S = 0.1


async def reward(ledger_url: str, key_file: str, settings_json: str) -> None:
    """Run all loops until nothing is open: no payment, no callback, no mint."""
    settings = GatewaySettings.model_validate_json(settings_json)
    clock, wakeups = SystemClock(), Wakeups()
    ledger = Ledger.open(ledger_url, clock=clock)
    await ledger.start()
    chain = await connect(settings.chain)
    custody = Custody.load(Path(key_file))
    settlement = Settlement(
        ledger,
        chain,
        custody,
        LiveSettings(settings.settlement),
        clock,
        wakeups,
        rewards_contract=settings.rewards.contract,
    )
    await settlement.start()
    async with dispatching(settings, ledger, custody, clock, wakeups):
        bell = wakeups.events.listen()
        while await ledger.read(is_anything_open):
            await bell.wait(LOOK_EVERY_S * 1000)
    await settlement.stop()
    await chain.close()
    await ledger.close()


def is_anything_open(connection: Connection) -> bool:
    return (
        any(queries.open_counts(connection).values())
        or outbox.next_due_ms(connection, "reward", 0) is not None
        or bool(mints.counts(connection))
    )


if __name__ == "__main__":
    asyncio.run(reward(*sys.argv[1:]))
