"""The state machine over settlement, with seeds of its own, until the time is over.

A run that fails is made as short as it can be; its steps are kept under `build/soak`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Settlement, quiet
from tests.soak.campaign import Found

STEPS: Final = "model steps"
_KEPT: Final = Path("build/soak")
_RUNS_A_PART: Final = 50
_STEPS_A_RUN: Final = 100
_PARTS_A_SEED: Final = 10_000
_SHRINKING_S: Final = 900.0  # hypothesis stops after five minutes; the part before it is shorter


def run(first_seed: int, minutes: float) -> Found:
    """In a process of its own, so that what a run leaves behind ends with it."""
    command = [sys.executable, "-m", "tests.soak.model", str(first_seed), f"{minutes:g}"]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=minutes * 60 + _SHRINKING_S,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    repeat = f"python -m tests.soak.model {first_seed} {minutes:g}"
    if done.returncode == 0:
        summary = done.stdout.strip().rpartition("\n")[2]
        return Found(True, summary, repeat, {STEPS: int(summary.partition(" ")[0])})
    _KEPT.mkdir(parents=True, exist_ok=True)
    kept = _KEPT / f"model-{first_seed}.txt"
    kept.write_text(done.stdout)
    return Found(False, f"failed; its steps are in {kept}", repeat)


def _try_for(first_seed: int, minutes: float) -> None:
    """Parts with seed after seed; whatever they find is raised."""
    end_s = time.monotonic() + minutes * 60
    part = 0
    while time.monotonic() < end_s:
        seeded = seed(first_seed * _PARTS_A_SEED + part)(Settlement)
        with quiet():
            run_state_machine_as_test(seeded, settings=_TRIED)
        part += 1
    sys.stdout.write(f"{Settlement.steps} steps in {part * _RUNS_A_PART} runs, nothing found\n")


_TRIED: Final = settings(
    max_examples=_RUNS_A_PART,
    stateful_step_count=_STEPS_A_RUN,
    database=None,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)

if __name__ == "__main__":
    _try_for(int(sys.argv[1]), float(sys.argv[2]))
