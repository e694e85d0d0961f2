"""`python -m tests.bench`: run the scenarios, show the results, write build/bench.json.

A missed goal does not fail the run, for machines differ and this one may be busy; a scenario that
could not be measured does: exit code 1.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from taprail_common.logs import configure_logs
from tests.bench import accept, goals, growth, notes, programs, push, restart, settle, tap
from tests.bench import console as console_traffic
from tests.bench.peers import measure as peers
from tests.bench.scenario import Bench, Results, Scenario

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "programs": programs.measure,
    "tap": tap.measure,
    "console": console_traffic.measure,
    "accept": accept.measure,
    "push": push.measure,
    "settle": settle.measure,
    "growth": growth.measure,
    "restart": restart.measure,
    "peers": peers.measure,
}
REPORT: Final = Path("build/bench.json")
_LONGEST_S: Final = 600.0

Only = Annotated[
    list[str] | None, typer.Option(help=f"Run only this one of: {', '.join(SCENARIOS)}.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report itself.")]


def main(only: Only = None, as_json: AsJson = False) -> None:
    """Measure TapRail on this machine."""
    configure_logs(json=False, level="warning")  # settlement runs in this process too
    chosen = only or list(SCENARIOS)
    unknown = sorted(set(chosen) - set(SCENARIOS))
    if unknown:
        raise typer.BadParameter(f"no scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}")
    console = Console(file=sys.stderr if as_json else sys.stdout, highlight=False)
    results: Results = {}
    failed = [name for name in chosen if not _run(name, console, results)]
    results |= goals.beaten(results)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(results, indent=2) + "\n")
    if as_json:
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
    console.print(goals.table(results))
    if (remarks := notes.table(results)) is not None:
        console.print(remarks)
    console.print(
        f"written to {REPORT}; other work on this machine shows in the figures", style="dim"
    )
    if failed:
        console.print(f"could not be measured: {', '.join(failed)}", style="bold red")
        raise typer.Exit(1)


def _run(name: str, console: Console, results: Results) -> bool:
    """Run one scenario in a folder of its own; False when it could not be measured."""
    # Not in the project's folder: the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix=f"taprail-bench-{name}-"))
    began_s = time.monotonic()
    try:
        with console.status(name) as status:

            def say(what: str) -> None:
                status.update(f"{name}: {what}")

            results |= asyncio.run(_bounded(SCENARIOS[name], Bench(folder, say)))
    except Exception:  # noqa: BLE001 - one scenario that fails must not cost the others' figures
        console.print_exception(max_frames=6)
        console.print(f"{name}: logs and state are in {folder}", style="red")
        return False
    console.print(f"[dim]{name}: measured in {time.monotonic() - began_s:.0f} s")
    shutil.rmtree(folder, ignore_errors=True)
    return True


async def _bounded(scenario: Scenario, bench: Bench) -> Results:
    async with asyncio.timeout(_LONGEST_S):
        return dict(await scenario(bench))


if __name__ == "__main__":
    typer.run(main)
