"""`python -m tests.soak --minutes 60`: all campaigns, over seeds, until the time is over.

    days    settlement through every crash point and every fault of the proxy, in each seed
    chaos   the whole stack; its faults, kills, reorgs … are dealt over the seeds, each alone
    attacks requests by someone who means ill: thousands in each seed, and none may be accepted
    taps    taps with faults of hands, cards, readers and wires: no double, no lost, no wrong green
    clients apps and terminals that connect, subscribe and vanish: memory stays flat
    model   the state machine over ledger and loops, beside the others with what they leave over

Three turns are under way at once, because most of one is waiting for blocks.

A soak of an hour is to see twenty seeds. What it has really met it says at its end; a fault that
an hour should have met and did not is a failure like any other. Exit code 1 when anything was
found, with the command that does it again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from tests.soak import attacks, chaos, clients, days, model, taps
from tests.soak.campaign import Campaign, Found, Means
from tests.support.postgres_server import NoPostgresError, PostgresServer

NAMES: Final = ("days", "chaos", "attacks", "taps", "clients", "model")
BESIDE: Final = "model"
"""It computes while the others wait for blocks."""
_AT_ONCE: Final = 3
"""Turns of the others: two leave a core idle, and no hour sees twenty seeds then."""
_NICENESS: Final = 5
"""Of what computes beside them, so that it delays no block."""
PLANNED_MINUTES: Final = 60.0
PLANNED_SEEDS: Final = 20
PLANNED_STEPS: Final = 100_000
PLANNED_ATTACKS: Final = 100_000
PLANNED_TAPS: Final = 10_000
PLANNED_CLIENTS: Final = 100_000
_SEEDS: Final = 1_000_000
_SHORTEST_TURN_MINUTES: Final = 0.1
_BESIDE_MINUTES: Final = 5.0

Only = Annotated[list[str] | None, typer.Option(help=f"Only this one of: {', '.join(NAMES)}.")]
Minutes = Annotated[float, typer.Option(min=0.1, help="No turn begins after it.")]
Seed = Annotated[int | None, typer.Option(min=0, help="The first turn's; the next has the next.")]
Token = Annotated[
    Path | None, typer.Option(help="Artifact of the published token, for some turns.")
]
Multicall = Annotated[Path | None, typer.Option(help="Artifact of the published Multicall3.")]


@dataclass
class Soak:
    """What has been run so far; its parts are used by several threads."""

    console: Console
    deadline_s: float
    found: list[Found] = field(default_factory=list)
    covered: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self, campaigns: Mapping[str, Campaign], seed: int, longest: float, at_once: int = 1
    ) -> None:
        """Every campaign with a seed before the next seed, until the time is over."""
        turns = ((seed + number, name) for number in itertools.count() for name in campaigns)

        def work() -> None:
            while (left := self._left_minutes()) > 0:
                with self._lock:
                    own_seed, name = next(turns)
                self._turn(name, campaigns[name], own_seed, min(longest, left))

        with ThreadPoolExecutor(at_once) as workers:
            try:
                for done in [workers.submit(work) for _ in range(at_once)]:
                    done.result()
            finally:
                self.deadline_s = time.monotonic()  # also when a person has interrupted it

    def run_beside(self, campaigns: Mapping[str, Campaign], seed: int) -> None:
        """The same in short turns, and only while nobody else wants the processor."""
        # On Linux that is this thread's own, and of all that it starts.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        self.run(campaigns, seed, _BESIDE_MINUTES)

    def _turn(self, name: str, campaign: Campaign, seed: int, minutes: float) -> None:
        self.console.print(f"[bold]{name} {seed}[/] begins")
        began_s = time.monotonic()
        try:
            found = campaign(seed, max(minutes, _SHORTEST_TURN_MINUTES))
        except Exception as exc:  # noqa: BLE001 - a turn that cannot be run is a finding as well
            found = Found(False, f"could not be run: {exc}", f"python -m tests.soak --seed {seed}")
        style = "green" if found.holds else "bold red"
        took_s = time.monotonic() - began_s
        with self._lock:
            self.found.append(found)
            self.covered.update(found.covered)
        self.console.print(f"[{style}]{name} {seed}: {found.summary}[/] in {took_s:.0f} s")

    def _left_minutes(self) -> float:
        return (self.deadline_s - time.monotonic()) / 60


@contextlib.contextmanager
def _postgres(console: Console) -> Iterator[str | None]:
    """A server for the time of the soak; None where there is none to be had."""
    with contextlib.ExitStack() as exits:
        url = None
        try:
            url = exits.enter_context(PostgresServer()).url("postgres")
        except NoPostgresError as exc:
            console.print(f"[yellow]without PostgreSQL:[/] {exc}")
        yield url


def main(
    minutes: Minutes = PLANNED_MINUTES,
    only: Only = None,
    seed: Seed = None,
    token: Token = None,
    multicall: Multicall = None,
) -> None:
    """Run campaigns until the time is over."""
    chosen = set(only or NAMES)
    unknown = sorted(chosen - set(NAMES))
    if unknown:
        raise typer.BadParameter(f"no campaign {unknown[0]!r}; there are: {', '.join(NAMES)}")
    if (token is None) != (multicall is None):
        raise typer.BadParameter("--token and --multicall go together")
    console = Console(highlight=False)
    first_seed = secrets.randbelow(_SEEDS) if seed is None else seed
    soak = Soak(console, time.monotonic() + minutes * 60)
    with _postgres(console) as postgres_url:
        means = Means(postgres_url, token, multicall)
        campaigns: dict[str, Campaign] = {
            "days": days.Days(means),
            "chaos": chaos.Chaos(first_seed, means),
            "attacks": attacks.run,
            "taps": taps.run,
            "clients": clients.run,
            "model": model.run,
        }
        wanted = {name: it for name, it in campaigns.items() if name in chosen}
        beside = {
            name: wanted.pop(name) for name in (BESIDE,) if len(wanted) > 1 and name in wanted
        }
        thread = threading.Thread(target=soak.run_beside, args=(beside, first_seed))
        if beside:
            thread.start()
        soak.run(wanted, first_seed, minutes, _AT_ONCE)
        if beside:
            thread.join()
    plan = _planned(chosen, means) if minutes >= PLANNED_MINUTES else Counter()
    if not _report(soak, plan):
        raise typer.Exit(1)


def _planned(chosen: set[str], means: Means) -> Counter[str]:
    plan: Counter[str] = Counter()
    if "days" in chosen:
        plan |= days.planned(PLANNED_SEEDS)
    if "chaos" in chosen:
        plan |= chaos.planned(PLANNED_SEEDS, means)
    if "attacks" in chosen:
        plan[attacks.ATTACKS] = PLANNED_ATTACKS
    if "taps" in chosen:
        plan[taps.TAPS] = PLANNED_TAPS
    if "clients" in chosen:
        plan[clients.CLIENTS] = PLANNED_CLIENTS
    if "model" in chosen:
        plan[model.STEPS] = PLANNED_STEPS
    return plan


def _report(soak: Soak, plan: Counter[str]) -> bool:
    """Say what was met and what was found; whether all is as it should be."""
    table = Table(title="What was met, and how often", title_justify="left", header_style="dim")
    for head in ("", "times", "planned"):
        table.add_column(head, justify="left" if not head else "right")
    missing = [name for name, times in plan.items() if soak.covered[name] < times]
    for name in sorted(soak.covered | plan):
        times, planned = soak.covered[name], plan[name]
        style = "bold red" if name in missing else ""
        table.add_row(name, str(times), str(planned or ""), style=style)
    soak.console.print(table)
    failed = [item for item in soak.found if not item.holds]
    soak.console.print(f"\n{len(soak.found)} turns, {len(failed)} of them found something")
    for item in failed:
        soak.console.print(f"[bold red]again:[/] {item.repeat}", soft_wrap=True)
    if missing:
        soak.console.print(f"[bold red]met too seldom:[/] {', '.join(missing)}", soft_wrap=True)
    return bool(soak.found) and not failed and not missing


if __name__ == "__main__":
    typer.run(main)
