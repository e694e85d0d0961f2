"""Requests by someone who means ill: most into the group commit, some through the front door.

Each seed has a ledger and cards of its own. A campaign of twenty seeds plays a hundred thousand.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.attack.campaign import Campaign
from tests.attack.doors import OverHttp, Straight
from tests.attack.victims import NEVER_SUSPICIOUS, Shop
from tests.soak.campaign import Found
from tests.support.gateway_fixtures import running_gateway

ATTACKS: Final = "attacks"
A_SEED: Final = 5_000
_OVER_HTTP: Final = 500


def run(seed: int, minutes: float) -> Found:
    """One seed's share, in a process of its own: a ledger's migration is for one thread alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_turn, seed, minutes).result()


def _turn(seed: int, minutes: float) -> Found:
    """It ends early when the time does."""
    with TemporaryDirectory(prefix="taprail-attacks-") as folder:
        straight, http, problems = asyncio.run(_play(Path(folder), seed, minutes * 60))
    attacks = straight + http
    summary = f"{attacks} attacks, {http} of them over HTTP"
    if problems:
        summary += f"; {len(problems)} problems, the first: {problems[0]}"
    repeat = f"python -m tests.soak --only {ATTACKS} --seed {seed} --minutes {minutes:g}"
    return Found(not problems, summary, repeat, {ATTACKS: attacks})


async def _play(folder: Path, seed: int, seconds: float) -> tuple[int, int, list[str]]:
    async with running_gateway(folder, accept_uid_cards=True, fraud=NEVER_SUSPICIOUS) as gateway:
        shop, rng = Shop.open(gateway), random.Random(seed)
        at = Campaign(shop, Straight(shop, rng, [gateway]), rng)
        await at.run(A_SEED - _OVER_HTTP, seconds=seconds)
        straight = at.attacks
        at.door = OverHttp([gateway])
        await at.run(A_SEED, seconds=seconds)
        await at.again_after_an_amnesty()
        return straight, at.attacks - straight, [*at.problems, *at.audited()]
