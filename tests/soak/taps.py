"""Taps with seeded faults, on real agents with a real gateway: nothing twice, nothing lost, no
green that was not earned, no terminal that stays stuck.

Each seed has a ledger, counters and cards of its own. A campaign of twenty seeds taps ten thousand
times. Where pcscd can be run, one of the counters has a PC/SC reader.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from taprail_hwsim.pads import Pad, pcsc_pad, pn532_pad
from taprail_hwsim.pcsc import Pcscd, PcscMissingError
from tests.attack.victims import NEVER_SUSPICIOUS
from tests.soak.campaign import Found
from tests.support.gateway_fixtures import running_gateway
from tests.support.tap_shop import Book, counters, tap_all

TAPS: Final = "taps"
A_SEED: Final = 500
_PN532_COUNTERS: Final = 9
"""A tap is mostly waiting: for hands, for a reader that comes back."""
_MOST_TURNED_AWAY: Final = 0.02


def run(seed: int, minutes: float) -> Found:
    """One seed's share, in a process of its own: a ledger's migration is for one thread alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_turn, seed, minutes).result()


def _turn(seed: int, minutes: float) -> Found:
    """It ends early when the time does."""
    with TemporaryDirectory(prefix="taprail-taps-") as folder, ExitStack() as exits:
        pads = _pads(Path(folder), exits)
        book = asyncio.run(_play(Path(folder), pads, seed, minutes * 60))
    problems = book.problems
    if book.turned_away > book.total * _MOST_TURNED_AWAY:
        problems = [*problems, f"{book.turned_away} clean taps turned away"]
    summary = f"{book.total} taps, {book.charges} charged, {book.greens} green"
    if problems:
        summary += f"; {len(problems)} problems, the first: {problems[0]}"
    repeat = f"python -m tests.soak --only {TAPS} --seed {seed} --minutes {minutes:g}"
    covered = {TAPS: book.total, **{f"tap: {name}": times for name, times in book.taps.items()}}
    return Found(not problems, summary, repeat, covered)


def _pads(folder: Path, exits: ExitStack) -> list[Pad]:
    pads: list[Pad] = []
    for number in range(_PN532_COUNTERS):
        own = folder / f"pad{number}"
        own.mkdir()
        pads.append(exits.enter_context(pn532_pad(own)))
    try:
        daemon = exits.enter_context(Pcscd(folder / "pcscd"))
    except PcscMissingError:
        return pads
    os.environ.update(daemon.environment)  # this process is for this turn alone
    return [*pads, exits.enter_context(pcsc_pad(daemon))]


async def _play(folder: Path, pads: list[Pad], seed: int, seconds: float) -> Book:
    book, until_s = Book(), time.monotonic() + seconds
    async with (
        running_gateway(folder, fraud=NEVER_SUSPICIOUS) as gateway,
        counters(folder, gateway, pads, seed, book) as made,
    ):
        await tap_all(made, seed, A_SEED, lambda: time.monotonic() < until_s)
    return book
