"""Settles a ledger in a process of its own, which a crash point may end: `python -m` with URLs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from taprail_common.clock import SystemClock
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import queries
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.connect import connect
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.settings import ChainSettings, SettlementSettings
from taprail_gateway.wakeups import Wakeups


async def settle(ledger_url: str, key_file: str, chain_json: str, settings_json: str) -> None:
    """Run both loops until nothing is open."""
    ledger = Ledger.open(ledger_url, clock=SystemClock())
    await ledger.start()
    chain = await connect(ChainSettings.model_validate_json(chain_json))
    wakeups = Wakeups()
    settlement = Settlement(
        ledger,
        chain,
        Custody.load(Path(key_file)),
        LiveSettings(SettlementSettings.model_validate_json(settings_json)),
        SystemClock(),
        wakeups,
    )
    await settlement.start()
    bell = wakeups.events.listen()
    while any((await ledger.read(queries.open_counts)).values()):
        await bell.wait()
    await settlement.stop()
    await chain.close()
    await ledger.close()


if __name__ == "__main__":
    asyncio.run(settle(*sys.argv[1:]))
