"""Chaos on the whole stack, one seed after the other; each in a process of its own."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.soak.campaign import Found

# The last round that begins in time has its warm-up, its fault and ten blocks still before it.
_LONGEST_ROUND_S: Final = 300.0


def run(seed: int, minutes: float) -> Found:
    """`taprail-sim chaos` with this seed; its timeline goes to this terminal."""
    command = [
        *(str(Path(sys.executable).parent / "taprail-sim"), "chaos", "--json"),
        *("--seed", str(seed), "--minutes", f"{minutes:g}"),
    ]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=minutes * 60 + _LONGEST_ROUND_S,
    )
    repeat = shlex.join(command[1:])
    if not done.stdout:
        return Found(False, f"ended with code {done.returncode}", f"taprail-sim {repeat}")
    report = json.loads(done.stdout)
    failed = [each for each in report["rounds"] if not each["judgement"]["holds"]]
    summary = (
        f"{len(report['rounds'])} rounds, {report['approved']} approved,"
        f" {report['settled']} settled, {len(failed)} rounds failed"
    )
    return Found(report["ok"] and done.returncode == 0, summary, report["repeat"])
