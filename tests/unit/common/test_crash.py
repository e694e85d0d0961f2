"""Crash points end a real process, at the hit that was asked for and at no other."""

import subprocess
import sys

PROGRAM = """
from taprail_common.crash import crash
for i in range(4):
    crash("other.point")
    crash("some.point")
    print(i, flush=True)
"""


def run(crash: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"TAPRAIL_CRASH": crash},
        capture_output=True,
        text=True,
        check=False,
    )


def test_third_hit_ends_the_process_like_kill_9() -> None:
    done = run("some.point@3")
    assert (done.returncode, done.stdout.split()) == (137, ["0", "1"])


def test_without_a_number_the_first_hit_counts() -> None:
    assert run("some.point").stdout == ""


def test_without_the_variable_nothing_happens() -> None:
    assert run("").stdout.split() == ["0", "1", "2", "3"]
