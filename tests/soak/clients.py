"""Apps and terminals that connect, subscribe and vanish, thousands of them: nothing is left.

One gateway in this process, on a real port; after each round nobody may be left in its tables, and
the memory that the process takes from the system may not grow from round to round. An hour of it
sees a hundred thousand clients and more.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.scenario import rss_mb
from tests.soak.campaign import Found
from tests.support.gateway_fixtures import running_gateway
from tests.support.push_vanishing import let_vanish, until_nothing_is_left

CLIENTS: Final = "clients"
A_ROUND: Final = 1_000
ROUNDS: Final = 10
_WARM_UP: Final = 2
"""Rounds until every cache and pool has its size."""

_MAY_GROW_MB: Final = 10.0
"""Over all rounds: a kilobyte for each client, of the twenty that a connected one takes."""


def run(seed: int, minutes: float) -> Found:
    """Ten thousand clients, or as many rounds as the time allows."""
    with TemporaryDirectory(prefix="taprail-clients-") as folder:
        clients, sizes_mb = asyncio.run(_play(Path(folder), seed, minutes * 60))
    grown_mb = sizes_mb[-1] - sizes_mb[0]
    rounds = " ".join(f"{size_mb:.1f}" for size_mb in sizes_mb)
    summary = f"{clients} clients came and vanished; MB after each round: {rounds}"
    repeat = f"python -m tests.soak --only {CLIENTS} --seed {seed} --minutes {minutes:g}"
    return Found(grown_mb <= _MAY_GROW_MB, summary, repeat, {CLIENTS: clients})


async def _play(folder: Path, seed: int, seconds: float) -> tuple[int, list[float]]:
    until_s, sizes_mb, clients = time.monotonic() + seconds, [0.0], seed
    async with running_gateway(folder) as gateway:
        card = gateway.card().issued.card_uuid
        for number in range(_WARM_UP + ROUNDS):
            await let_vanish(gateway, card, range(clients, clients + A_ROUND))
            await until_nothing_is_left(gateway)
            clients += A_ROUND
            gc.collect()
            size_mb = rss_mb(os.getpid())
            sizes_mb = [size_mb] if number < _WARM_UP else [*sizes_mb, size_mb]
            if time.monotonic() > until_s:
                break
    return clients - seed, sizes_mb
