"""`taprail-sim chaos` for a short while: faults that every engine has to survive, as installed.

Long campaigns over many seeds are `make soak`. This shows that the tool works and is in earnest:
requests were cut, the gateway died, the node was away.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.e2e.programs import TIMEOUT_S, command, refusal, says

pytestmark = [pytest.mark.e2e, pytest.mark.chain]
SEED = "11"
FAULTS = ("drop_reply", "crash:settle.bound", "node_restart")


def chaos(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, report and what people saw."""
    done = subprocess.run(
        command("taprail-sim", "chaos", "--json", "--seed", SEED, *arguments),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def test_nothing_is_lost_doubled_or_stuck() -> None:
    """Replies are cut, the gateway dies between storing and sending, the node goes away."""
    wanted = [word for name in FAULTS for word in ("--fault", name)]
    code, report, seen = chaos("--rounds", str(len(FAULTS)), "--minutes", "1", *wanted)
    assert code == 0, seen
    assert report["ok"]
    control, *rounds = report["rounds"]
    assert control["faults"] == []
    assert {fault["name"] for each in rounds for fault in each["faults"]} == set(FAULTS)
    assert all(sum(each["injected"].values()) for each in rounds), seen
    for each in report["rounds"]:
        assert each["approved"] == each["settled"] > 0
    assert "everything held" in seen


def test_a_fault_that_there_is_not_is_refused() -> None:
    line = refusal("taprail-sim", "chaos", "--fault", "gremlins")
    assert says(line, ["gremlins", "taprail-sim chaos --list"])
