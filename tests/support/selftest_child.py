"""The self-test of an otherwise healthy terminal as a process of its own, for a test that breaks
what no process can break for itself alone: the disk below it, the name servers of its machine.

    python -m tests.support.selftest_child STATE_DIR GATEWAY_URL

Prints the checks as JSON. Runs in a namespace: see `selftest_within`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from taprail_terminal.console.net_test import Target
from taprail_terminal.console.selftest import Check, run_selftest
from tests.support.console_probes import healthy_probes

# A mount table and a network of its own, where this user is root.
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "--net")
_LIMIT_S = 60


def selftest_within(prepare: str, state_dir: Path, gateway_url: str) -> dict[str, Check]:
    """The checks of a self-test after a shell has prepared the machine. Skips the test where this
    user may not have a namespace."""
    if subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    child = [sys.executable, "-m", "tests.support.selftest_child", str(state_dir), gateway_url]
    done = subprocess.run(
        [*_NAMESPACE, "sh", "-ec", f'{prepare}\nexec "$@"', "sh", *child],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    return {
        row["name"]: Check(row["name"], row["ok"], row["detail"], row["whatToDo"], row["ms"])
        for row in rows
    }


async def _main(state_dir: Path, gateway_url: str) -> None:
    probes = replace(healthy_probes(state_dir), target=Target.of(gateway_url))
    checks = await run_selftest(probes)
    sys.stdout.write(json.dumps([check.to_json() for check in checks]))


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2]))
