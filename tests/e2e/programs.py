"""The installed commands, run to their end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support import warm

TIMEOUT_S = 110.0
_ENVIRONMENT = {"COLUMNS": "40"}
"""A line for a person must not depend on its window."""
_TRACES = ("Traceback", 'File "')


def command(program: str, *arguments: str) -> list[str]:
    """The command line of a program of this environment."""
    return [str(Path(sys.executable).parent / program), *arguments]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; never raises for what it answers."""
    return subprocess.run(
        command(program, *arguments),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **_ENVIRONMENT},
    )


def run_warm(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in a process that has its imports behind it, for who starts dozens of them."""
    return warm.run(command(program, *arguments), {**os.environ, **_ENVIRONMENT}, TIMEOUT_S)


def refusal(program: str, *arguments: str, exit_code: int = 2) -> str:
    """Run a command that must refuse: the one line that it says, on stderr, and no more."""
    done = run_warm(program, *arguments)
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert not [trace for trace in _TRACES if trace in done.stderr], done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0].removeprefix("error: ")


def says(line: str, words: Sequence[str]) -> bool:
    """Whether a refusal holds all of these words."""
    return all(word in line for word in words)
