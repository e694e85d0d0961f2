"""A peer as a child process: where its parts are, what it is given, and when it is done."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from taprail_hwsim.node_tools import find_node
from taprail_hwsim.process import die_with_parent
from tests.bench.scenario import BenchError

_SOURCES: Final = Path(__file__).parent
_LIBRARIES: Final = Path("build/peers/node_modules")
_LONGEST_S: Final = 90.0


@dataclass(frozen=True)
class Peer:
    """A program, and how much it is given to do: some eight seconds' worth."""

    name: str
    command: tuple[str, ...]
    payments: int
    counted: int
    """Payments of the shorter run in which its RPC calls are counted."""
    concurrency: int = 50


def furnish(folder: Path) -> None:
    """Put the JavaScript peers into a folder, beside their libraries: Node looks for them there."""
    libraries = _LIBRARIES.resolve()
    if not libraries.is_dir():
        raise BenchError(f"no libraries of the peers in {libraries}: `.ci/setup peers` gets them")
    (folder / "node_modules").symlink_to(libraries)
    for source in _SOURCES.glob("*.mjs"):
        shutil.copy(source, folder)


async def run(peer: Peer, job: Mapping[str, Any], folder: Path) -> None:
    """Let it settle its job. Payments that it could not send are told in its log, and go missing.

    Raises BenchError when the program itself fails, TimeoutError when it does not end.
    """
    path = folder / f"{peer.name}.json"
    path.write_text(json.dumps(job))
    with _log(peer, folder).open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(*_command(peer, folder), str(path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    try:
        async with asyncio.timeout(_LONGEST_S):
            await _let_go(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise BenchError(f"{peer.name} failed: {last_words(peer, folder)}")


async def _let_go(process: asyncio.subprocess.Process) -> None:
    """It loads and says so; then it gets a line, which is the start, and ends when it is done."""
    assert process.stdin is not None
    assert process.stdout is not None
    if await process.stdout.readline():
        process.stdin.write(b"go\n")
    await process.wait()


def last_words(peer: Peer, folder: Path) -> str:
    """The end of its log."""
    lines = _log(peer, folder).read_text(errors="replace").splitlines()
    return " ".join(lines[-3:]) or "without a word"


def _log(peer: Peer, folder: Path) -> Path:
    return folder / f"{peer.name}.log"


def _command(peer: Peer, folder: Path) -> Sequence[str]:
    program, *arguments = peer.command
    if program.endswith(".mjs"):
        return [str(find_node()), str(folder / program), *arguments]
    return [sys.executable, "-m", program, *arguments]
