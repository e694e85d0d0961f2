"""`python -m tests.soak --minutes 60`: all campaigns in turn, over seeds, until the time is over.

Each turn gets a share of the time and a seed of its own. Exit code 1 when any turn found something,
with the command that does it again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, NamedTuple

import typer
from rich.console import Console

from tests.soak import chaos, model
from tests.soak.campaign import Campaign, Found

CAMPAIGNS: Final[Mapping[str, Campaign]] = {
    "chaos": chaos.run,
    "model": model.run,
}
_SEEDS: Final = 1_000_000
_SEEDS_A_RUN: Final = 20
"""How many seeds a run is meant to see, whatever its length …"""
_SHORTEST_TURN_MINUTES: Final = 1.0
"""… but no turn is shorter: a stack has to be started for it."""

Only = Annotated[list[str] | None, typer.Option(help=f"Only this one of: {', '.join(CAMPAIGNS)}.")]
Minutes = Annotated[float, typer.Option(min=0.1, help="No turn begins after it.")]
Seed = Annotated[int | None, typer.Option(min=0, help="The first turn's; the next has the next.")]


class Turn(NamedTuple):
    """One campaign with one seed."""

    name: str
    seed: int
    minutes: float


def turns(names: Sequence[str], first_seed: int, minutes: float) -> Iterator[Turn]:
    """Without end, every campaign with a seed before the next seed."""
    share = max(_SHORTEST_TURN_MINUTES, minutes / _SEEDS_A_RUN / len(names))
    seed = first_seed
    while True:
        for name in names:
            yield Turn(name, seed, min(share, minutes))
        seed += 1


def main(minutes: Minutes = 60.0, only: Only = None, seed: Seed = None) -> None:
    """Run campaigns until the time is over."""
    unknown = sorted(set(only or []) - set(CAMPAIGNS))
    if unknown:
        raise typer.BadParameter(f"no campaign {unknown[0]!r}; there are: {', '.join(CAMPAIGNS)}")
    console = Console(highlight=False)
    deadline_s = time.monotonic() + minutes * 60
    found: list[Found] = []
    first_seed = secrets.randbelow(_SEEDS) if seed is None else seed
    for turn in turns(only or list(CAMPAIGNS), first_seed, minutes):
        if time.monotonic() >= deadline_s:
            break
        left_minutes = max(0.1, (deadline_s - time.monotonic()) / 60)
        console.print(f"\n[bold]{turn.name}[/] with seed {turn.seed}")
        found.append(CAMPAIGNS[turn.name](turn.seed, min(turn.minutes, left_minutes)))
        style = "green" if found[-1].holds else "bold red"
        console.print(f"[{style}]{turn.name} {turn.seed}: {found[-1].summary}")
    failed = [item for item in found if not item.holds]
    console.print(f"\n{len(found)} turns, {len(failed)} of them found something")
    for item in failed:
        console.print(f"[bold red]again:[/] {item.repeat}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
