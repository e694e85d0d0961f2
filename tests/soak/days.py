"""Settlement through its crash points and the proxy's faults, in days that are lived as fast as can
be: with one seed each crash point and every second fault, among events that the seed draws.

A day is on a ledger and a stretch of chain of its own, and drawn from the seed and its name alone,
so that it can be had again by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final

import typer
from sqlalchemy import update

from taprail_common.clock import SystemClock
from taprail_common.crash import EXIT_CODE
from taprail_gateway.ledger import migrate, schema
from taprail_gateway.ledger.database import Ledger
from taprail_hwsim.chaos.databases import Databases
from taprail_hwsim.chaos.troubles import CRASH_PREFIX, WireTrouble, catalogue
from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.published import Published
from taprail_hwsim.rpc_proxy import FAULTS
from tests.soak.campaign import Found, Means
from tests.support import crash_day, shop_day
from tests.support.crash_day import CALM, POINTS, event_before
from tests.support.postgres_server import PostgresServer
from tests.support.reward_shop import RewardShop
from tests.support.shop_day import EVENTS, LONGEST_DAY_MS, MET_ON, Day, shop_of_a_day

CRASHES: Final = tuple(CRASH_PREFIX + point for point in POINTS)
RPC_TIMEOUT_MS: Final = 1_000
"""What hangs is given up after it; a node is slow as well while other campaigns compute."""
_KEPT: Final = Path("build/soak")
_LATEST_HIT: Final = 3
_WITH_FAULTS: Final = ("business", "fee_spike", "poor_lanes", "reorg")
"""What may come amid a fault of the wire."""
_A_DAYS_SALES: Final = 1_000
"""More than there ever are: request ids are counted."""
_LONGEST_DAY_S: Final = 180.0


class Days:
    """A campaign; two seeds are on files and two on PostgreSQL, where there is one, so that either
    meets all faults."""

    def __init__(self, means: Means) -> None:
        self._means = means

    def __call__(self, seed: int, minutes: float) -> Found:
        """In a process of its own, so that what it says and leaves behind ends with it."""
        words = ["--seed", str(seed), *self._options(seed)]
        _KEPT.mkdir(parents=True, exist_ok=True)
        kept = _KEPT / f"days-{seed}.log"
        with kept.open("w") as log, tempfile.NamedTemporaryFile(suffix=".json") as report:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "tests.soak.days", *words),
                    *("--minutes", f"{minutes:g}", "--report", report.name),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=minutes * 60 + _LONGEST_DAY_S,
            )
            text = Path(report.name).read_text()
        repeat = shlex.join(["python", "-m", "tests.soak.days", *words])
        if done.returncode or not text:
            return Found(False, f"ended with code {done.returncode}: see {kept}", repeat)
        lived, failed = json.loads(text)
        summary = f"{sum(lived.values())} days, {len(failed)} of them failed"
        if failed:
            again = " ".join(f"--only {name}" for name in failed)
            return Found(False, f"{summary}: see {kept}", f"{repeat} {again}", lived)
        kept.unlink()
        return Found(True, summary, repeat, lived)

    def _options(self, seed: int) -> list[str]:
        words = []
        if seed // 2 % 2 and self._means.postgres_url is not None:
            words.append("--postgres")
        if seed % 3 == 0 and self._means.token is not None:
            words += ["--token", str(self._means.token), "--multicall", str(self._means.multicall)]
        return words


def planned(seeds: int) -> Counter[str]:
    """What so many turns are to cover, and how often at least."""
    return Counter(dict.fromkeys(CRASHES, seeds)) + Counter(dict.fromkeys(FAULTS, seeds // 2))


# --- one seed -------------------------------------------------------------------------------------


@dataclass
class Seed:
    """The days of one seed, on one node and one server."""

    seed: int
    chain: DevChain
    databases: Databases | None
    empty_ledger: str
    """Where each day's ledger is copied from: a URL of a database, or a file."""
    lived: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    async def live(self, name: str) -> None:
        """One day; what goes wrong in it is told, and the next one comes."""
        rng = random.Random(f"{self.seed}:{name}")
        try:
            with tempfile.TemporaryDirectory() as folder, self.chain.isolated() as chain:
                url = self._ledger_url(Path(folder))
                await _day(name, rng, chain, url, Path(folder) / "master.key")
        except Exception:  # noqa: BLE001 - a finding, whatever it is
            traceback.print_exc()
            sys.stdout.write(f"FAILED: {name} with seed {self.seed}\n")
            self.failed.append(name)
        else:
            self.lived[name] += 1

    def _ledger_url(self, folder: Path) -> str:
        if self.databases is not None:
            return self.databases.fresh(like=self.empty_ledger)
        return f"sqlite:///{shutil.copy(self.empty_ledger, folder / 'ledger.db')}"


async def _day(name: str, rng: random.Random, chain: DevChain, url: str, key_file: Path) -> None:
    async with (
        asyncio.timeout(_LONGEST_DAY_S),
        shop_of_a_day(chain, url, key_file, lanes=rng.randint(1, 3)) as rewarding,
    ):
        if name.startswith(CRASH_PREFIX):
            await _crash(name.removeprefix(CRASH_PREFIX), rng, rewarding, url, key_file)
        else:
            await _fault(name, rng, rewarding, url)


async def _crash(
    point: str, rng: random.Random, rewarding: RewardShop, url: str, key_file: Path
) -> None:
    """Die somewhere on a day of drawn events, or else on a calm one where the point is passed."""
    given = crash_day.ticket(rewarding, url, key_file)
    events = [rng.choice(list(EVENTS)), event_before(point), rng.choice(list(EVENTS))]
    hit = crash_day.first_hit(point) + rng.randrange(_LATEST_HIT)
    code = await crash_day.live(given, events, rng.getrandbits(31), f"{point}@{hit}")
    if code == 0:  # it was passed too seldom
        await _night(rewarding, url)
        given = replace(crash_day.ticket(rewarding, url, key_file), sold=_A_DAYS_SALES)
        events, hit = [CALM, event_before(point)], crash_day.first_hit(point)
        code = await crash_day.live(given, events, rng.getrandbits(31), f"{point}@{hit}")
    assert code == EXIT_CODE, f"{point} was not reached: ended with code {code}"
    await _night(rewarding, url)
    async with _ledger_of(rewarding, url):
        await shop_day.finish(rewarding, rng.getrandbits(31))
        shop_day.judge(rewarding)


async def _fault(name: str, rng: random.Random, rewarding: RewardShop, url: str) -> None:
    """A fault while an event comes; ten blocks after its end all is well."""
    trouble = catalogue()[name](rng)
    assert isinstance(trouble, WireTrouble)
    async with _ledger_of(rewarding, url), _awake(rewarding, rng) as day:
        await day.turn()
        rules = day.proxy.inject(trouble.rule, *trouble.beside)
        events = [MET_ON.get(name) or rng.choice(_WITH_FAULTS)]
        for event in [*events, *["business"] * _LATEST_HIT]:
            await EVENTS[event](day)
            if rules[0].injected:
                break
        day.proxy.withdraw(rules)
        await day.proxy.quiet()
        await day.turn(shop_day.BLOCKS_TO_SETTLE)
        assert rules[0].injected, f"{name} was not met"
        shop_day.judge(rewarding)


@contextlib.asynccontextmanager
async def _ledger_of(rewarding: RewardShop, url: str) -> AsyncIterator[None]:
    rewarding.shop.ledger = Ledger.open(url, clock=SystemClock())
    await rewarding.shop.ledger.start()
    try:
        yield
    finally:
        await rewarding.shop.ledger.close()


@contextlib.asynccontextmanager
async def _awake(rewarding: RewardShop, rng: random.Random) -> AsyncIterator[Day]:
    seed = rng.getrandbits(31)
    async with shop_day.dawn(rewarding, seed, rpc_timeout_ms=RPC_TIMEOUT_MS) as day:
        yield day


async def _night(rewarding: RewardShop, url: str) -> None:
    """The time has passed that a dead gateway's leases last, and whatever it had waited for."""
    rewarding.shop.clock.ahead_ms += LONGEST_DAY_MS
    over = update(schema.leases).values(until_ms=0)
    async with _ledger_of(rewarding, url):
        await rewarding.shop.ledger.write(lambda connection: connection.execute(over).close())


# --- the process ----------------------------------------------------------------------------------


async def _all(names: list[str], seed: int, minutes: float, databases: Databases | None) -> Seed:
    deadline_s = time.monotonic() + minutes * 60
    with DevChain() as chain, tempfile.TemporaryDirectory() as folder:
        chain.deploy_token()
        lives = Seed(seed, chain, databases, _empty_ledger(Path(folder), databases))
        for name in random.Random(seed).sample(names, len(names)):
            if time.monotonic() >= deadline_s:
                break
            await lives.live(name)
    return lives


def _empty_ledger(folder: Path, databases: Databases | None) -> str:
    """Made once, because that takes longer than many a day."""
    if databases is not None:
        url = databases.fresh()
        migrate.upgrade(url)
        return url
    file = folder / "empty.db"
    migrate.upgrade(f"sqlite:///{file}")
    return str(file)


def main(
    seed: Annotated[int, typer.Option(min=0)],
    minutes: float = 60.0,
    only: Annotated[list[str] | None, typer.Option(help="Only this day.")] = None,
    postgres: Annotated[bool, typer.Option(help="On a PostgreSQL of its own.")] = False,
    token: Path | None = None,
    multicall: Path | None = None,
    report: Path | None = None,
) -> None:
    """Live the days of a seed, or only some."""
    DevChain.published = Published(token, multicall)
    names = only or [*CRASHES, *list(FAULTS)[seed % 2 :: 2]]
    with contextlib.ExitStack() as exits:
        databases = None
        if postgres:
            databases = Databases(exits.enter_context(PostgresServer()).url("postgres"))
        lives = asyncio.run(_all(names, seed, minutes, databases))
    if report is not None:
        report.write_text(json.dumps([lives.lived, lives.failed]))
    elif lives.failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    typer.run(main)
