"""Programs of ours in processes of their own, forked from one that has their imports behind it.

A gateway's start is two seconds of processor time, nearly all of it imports, and the tests start
some two hundred programs. Such a process has its own command line, environment and streams, runs
the installed command's own script, and is killed and ends like any other; only where its modules
come from is different. Whether the commands start by themselves is for the tests that do not ask
for this: `taprail-sim up` and `demo` start all of them the way a person does.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import IO, Any, Final

import taprail_common.crash

_PROCESSES: Final = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.support.warm_imports"])


def process(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that does a function's work, not started yet; it ends with ours."""
    return _PROCESSES.Process(target=work, args=arguments, daemon=True)


def run(
    command: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> CompletedProcess[str]:
    """Run a command to its end; never raises for what it answers."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with _streams(out.fileno(), err.fileno()) as streams:
            started = process(_be, list(command), dict(environment), *streams)
            started.start()
        started.join(timeout_s)
        if started.exitcode is None:
            started.kill()
            raise TimeoutExpired(command, timeout_s)
        out.seek(0)
        err.seek(0)
        return CompletedProcess(command, started.exitcode, out.read(), err.read())


async def spawn(
    command: Sequence[str], environment: Mapping[str, str], stderr: IO[bytes] | None = None
) -> WarmProcess:
    """Start a command whose stdout is read here."""
    ours, theirs = os.pipe()
    try:
        with _streams(theirs, stderr.fileno() if stderr is not None else 2) as streams:
            started = process(_be, list(command), dict(environment), *streams)
            await asyncio.to_thread(started.start)  # the first waits for all the imports
    finally:
        os.close(theirs)
    running = WarmProcess(started)
    await running.listen(ours)
    return running


class WarmProcess:
    """A running program, in the form of an `asyncio.subprocess.Process`."""

    def __init__(self, started: BaseProcess) -> None:
        assert started.pid is not None
        self.pid = started.pid
        self.stdout = asyncio.StreamReader()
        self._process = started
        self._hung_up = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._exit_code: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(started.sentinel, self._ended)

    @property
    def returncode(self) -> int | None:
        """How it ended (negative: a signal); None while it runs."""
        return self._exit_code.result() if self._exit_code.done() else None

    async def listen(self, fd: int) -> None:
        """Read what it says, from this end of its pipe."""
        ear = _Ear(self.stdout, self._hung_up)
        self._pipe, _ = await self._loop.connect_read_pipe(lambda: ear, os.fdopen(fd, "rb"))

    async def wait(self) -> int:
        """Wait until it has ended and all that it said was heard; gives its exit code."""
        await self._hung_up.wait()
        return await asyncio.shield(self._exit_code)

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError when it has ended."""
        if self._exit_code.done():
            raise ProcessLookupError(self.pid)
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self) -> None:
        self._loop.remove_reader(self._process.sentinel)
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        self._exit_code.set_result(code)


class _Ear(asyncio.StreamReaderProtocol):
    """Tells when the other end of the pipe was closed."""

    def __init__(self, stdout: asyncio.StreamReader, hung_up: asyncio.Event) -> None:
        super().__init__(stdout)
        self._hung_up = hung_up

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._hung_up.set()


@contextlib.contextmanager
def _streams(stdout: int, stderr: int) -> Iterator[list[Connection]]:
    """stdin, stdout and stderr as what can be handed to another process."""
    with contextlib.ExitStack() as exits:
        nothing = os.open(os.devnull, os.O_RDWR)
        yield [
            exits.enter_context(Connection(fd)) for fd in (nothing, os.dup(stdout), os.dup(stderr))
        ]


# --- in the process -------------------------------------------------------------------------------


def _be(command: list[str], environment: dict[str, str], *streams: Connection) -> None:
    """What an interpreter does that was given this command line."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.clear()
    os.environ.update(environment)
    importlib.reload(taprail_common.crash)  # it has read the environment once
    is_module = command[:2] == [sys.executable, "-m"]
    sys.argv = command[2:] if is_module else command
    sys.orig_argv = command if is_module else [sys.executable, *command]
    if is_module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(Path(sys.argv[0])), run_name="__main__")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
