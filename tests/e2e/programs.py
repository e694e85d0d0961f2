"""The installed commands, run to their end."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

TIMEOUT_S = 110.0
_ENVIRONMENT = {"COLUMNS": "40"}
"""A line for a person must not depend on its window."""
_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(["taprail_gateway.app", "taprail_gateway.cli"])
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


def run_warm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `taprail` to its end in a process that has its imports behind it.

    They take two seconds of a gateway's start, which dozens of starts would pay again and again.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _WARM.Process(target=_be_taprail, args=(arguments, out, err))
        process.start()
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, TIMEOUT_S)
        done = (process.exitcode, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(arguments, *done)


def _be_taprail(arguments: Sequence[str], out: Path, err: Path) -> None:
    """What the installed `taprail` does, from where it has nothing but its command line."""
    for number, path in (
        (0, Path(os.devnull)),
        (1, out),
        (2, err),
    ):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.update(_ENVIRONMENT)
    sys.argv = ["taprail", *arguments]
    import_module("taprail_common.cli").main()


def refusal(program: str, *arguments: str, exit_code: int = 2) -> str:
    """Run a command that must refuse: the one line that it says, on stderr, and no more."""
    done = run_warm(*arguments) if program == "taprail" else run(program, *arguments)
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert not [trace for trace in _TRACES if trace in done.stderr], done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0].removeprefix("error: ")


def says(line: str, words: Sequence[str]) -> bool:
    """Whether a refusal holds all of these words."""
    return all(word in line for word in words)
