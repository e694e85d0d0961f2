"""`taprail-sim proxy`: the proxy by itself, before any node, until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from taprail_hwsim.rpc_proxy.server import Injection, RpcProxy
from taprail_hwsim.rpc_proxy.table import FAULTS, about, parameters

_CLOCK: Final = 60


def list_faults(*, as_json: bool) -> None:
    """Say which faults there are, with their parameters and what each one is."""
    rows = {
        name: {
            "about": about(name),
            "methods": list(FAULTS[name].methods),
            "parameters": parameters(name),
        }
        for name in FAULTS
    }
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for head in ("fault", "parameters", "what it is"):
        table.add_column(head)
    for name, row in rows.items():
        options = " ".join(f"{key}={value}" for key, value in parameters(name).items())
        table.add_row(Text(name, "bold cyan"), options, str(row["about"]))
    Console(highlight=False).print(table)


async def run_proxy(
    node_url: str, faults: Sequence[str], *, seed: int, host: str, port: int, as_json: bool
) -> None:
    """Serve until SIGINT or SIGTERM, and say each fault when it is injected."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    began_s = time.monotonic()
    async with RpcProxy(node_url, seed=seed, host=host, port=port) as proxy:
        proxy.inject(*faults)

        def tell(injection: Injection) -> None:
            at_s = injection.at_s - began_s
            _say_json(injection, at_s) if as_json else _say(injection, at_s)

        proxy.listen(tell)
        if as_json:
            _write({"event": "ready", "url": proxy.url, "node": node_url, "seed": seed})
        else:
            _welcome(proxy, seed)
        await stopped.wait()
    counts = {rule.name: rule.injected for rule in proxy.rules}
    if as_json:
        _write({"event": "stopped", "injected": counts, "calls": proxy.calls.total()})
    else:
        _console().print(f"\n{proxy.calls.total()} calls; injected: {counts or 'nothing'}")


def _welcome(proxy: RpcProxy, seed: int) -> None:
    say = _console().print
    say(f"[bold]{proxy.url}[/] → {proxy.node_url}   seed {seed}   Ctrl-C stops it.\n")
    for rule in proxy.rules:
        where = ", ".join(rule.methods or rule.fault.methods) or "every call"
        say(f"  [cyan]{rule.name:<18}[/] {rule.amount!s:<10} {where}")
    say()


def _say(injection: Injection, at_s: float) -> None:
    minutes, seconds = divmod(at_s, _CLOCK)
    _console().print(
        f"[dim]{int(minutes):3}:{seconds:06.3f}[/]  [red]{injection.fault:<18}[/] "
        + ", ".join(injection.methods)
    )


def _say_json(injection: Injection, at_s: float) -> None:
    _write(
        {
            "event": "injected",
            "atS": round(at_s, 3),
            "fault": injection.fault,
            "methods": injection.methods,
        }
    )


def _write(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)
