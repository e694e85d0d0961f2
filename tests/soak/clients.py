"""Apps and terminals that connect, subscribe and vanish, thousands of them: nothing is left.

One gateway on a real port, in a process of its own, for other campaigns would be measured as well;
after each round nobody may be left in its tables, and the memory that the process takes from the
system may not grow from round to round. Ten seeds are a hundred thousand clients.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
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
    command = (sys.executable, "-m", "tests.soak.clients", str(seed), str(minutes * 60))
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    clients, sizes_mb = json.loads(told.splitlines()[-1])
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


if __name__ == "__main__":
    with TemporaryDirectory(prefix="taprail-clients-") as _folder:
        _played = asyncio.run(_play(Path(_folder), int(sys.argv[1]), float(sys.argv[2])))
    sys.stdout.write(json.dumps(_played) + "\n")
