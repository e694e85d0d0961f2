"""TapRail's programs as child processes: start, wait until ready, stop, kill.

What the simulator starts is what a field machine runs: the installed commands, with a
configuration file, nothing in-process. Each child's log goes to a file of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
_LAST_WORDS_BYTES = 2000
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ProgramError(Exception):
    """A program ended or did not become ready; its last words are in the message."""


class Running(Protocol):
    """A child process: what is used here of `asyncio.subprocess.Process`."""

    @property
    def pid(self) -> int: ...
    @property
    def stdout(self) -> asyncio.StreamReader | None: ...
    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def send_signal(self, signal: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


async def spawn(
    command: Sequence[str], environment: Mapping[str, str], stderr: IO[bytes]
) -> Running:
    """Start a command whose stdout is read here, and which ends with us."""
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env=environment,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )


class Program:
    """One child process. `start` returns when its first line of JSON on stdout says it is ready."""

    spawn: ClassVar[Callable[..., Awaitable[Running]]] = staticmethod(spawn)
    """How processes are started. Tests that start a hundred may have a quicker way."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._command = command
        self._log_path = log_path
        self._environment = dict(environment or {})
        self._process: Running | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        """How it ended (negative: a signal); None while it runs."""
        return None if self._process is None else self._process.returncode

    async def start(self, extra_environment: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Start it; gives the JSON object that the program printed when it was ready."""
        if self.is_running:
            raise ProgramError(f"{self.name} is running already")
        with self._log_path.open("ab") as log:
            given = {**os.environ, **self._environment, **(extra_environment or {})}
            self._process = await self.spawn(self._command, given, log)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                return await self._read_ready_line()
        except TimeoutError:
            await self.kill()
            raise ProgramError(f"{self.name} was not ready in {START_TIMEOUT_S:.0f} s") from None

    async def stop(self) -> int:
        """SIGTERM and wait; SIGKILL when it does not heed. Gives the exit code."""
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                return await process.wait()
        except TimeoutError:
            await self.kill()
            raise ProgramError(f"{self.name} did not stop on SIGTERM: killed") from None

    async def kill(self) -> None:
        """kill -9, as a power cut would be for this process."""
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def wait_exit(self, timeout_s: float) -> int:
        """Wait until it ends by itself; gives its exit code (negative: a signal)."""
        async with asyncio.timeout(timeout_s):
            return await self._running().wait()

    async def ended(self) -> int:
        """Wait, as long as it takes, until it ends by itself; gives its exit code."""
        return await self._running().wait()

    def send_signal(self, number: signal.Signals) -> None:
        """SIGSTOP makes a hanging program, SIGCONT lets it go on."""
        self._running().send_signal(number)

    async def _read_ready_line(self) -> dict[str, Any]:
        process = self._running()
        if process.stdout is None:
            raise ProgramError(f"{self.name} has no stdout")
        line = await process.stdout.readline()
        if not line:
            # A program that refuses to start says why in its last line.
            raise ProgramError(self.obituary(await process.wait()))
        ready: dict[str, Any] = json.loads(line)
        return ready

    def last_words(self) -> str:
        """The end of its log, for an error message."""
        try:
            return self._log_path.read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace").strip()
        except FileNotFoundError:
            return "(no log)"

    def obituary(self, exit_code: int) -> str:
        """Why it has ended, in one line: its own last words, or how it was killed."""
        if exit_code < 0:
            how = signal.Signals(-exit_code).name
            return f"{self.name} was killed ({how}): see {self._log_path}"
        why = self.last_words().splitlines()[-1:]
        return f"{self.name} ended with code {exit_code}: {''.join(why) or 'no word'}"

    def _running(self) -> Running:
        if self._process is None:
            raise ProgramError(f"{self.name} has not been started")
        return self._process


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What a child runs before exec: ask Linux for a signal when the thread that forked it ends.

    The thread, not the process (prctl(2)): whoever starts a child must outlive it.
    """
    if sys.platform != "linux":
        return None
    # Loaded here: between fork and exec there is no safe way to import or allocate much.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died before the call above
            os.kill(os.getpid(), signal.SIGKILL)

    return ask
