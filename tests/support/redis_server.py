"""A Redis of the tests' own: Debian's server, on a socket in a folder that goes with it.

It listens on no port and writes nothing to disk.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self

PASSWORD: Final = "s3cret/with@signs"
_START_S: Final = 10.0
_SETTINGS: Final = {
    "port": "0",
    "save": "",
    "appendonly": "no",
    "daemonize": "no",
    "requirepass": PASSWORD,
}


class NoRedisError(Exception):
    """There is no Redis on this machine; the message says what to do."""


class RedisServer:
    """One server; `with` starts it, stops it and removes its folder."""

    def __init__(self) -> None:
        found = shutil.which("redis-server")
        if found is None:
            raise NoRedisError("no redis-server on this machine: run `.ci/setup redis`")
        self._program = found
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="taprail-redis-"))
        try:
            self.start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where a gateway finds it, with the password."""
        return f"unix://:{PASSWORD.replace('/', '%2F').replace('@', '%40')}@{self._socket}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        settings = {"unixsocket": str(self._socket), "dir": str(self._folder), **_SETTINGS}
        given = [text for name, value in settings.items() for text in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [*_ends_with_us(), self._program, *given],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        deadline_s = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise RuntimeError("redis-server does not start; its reason is on stderr")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once; those who are connected find out."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_START_S)
            self._process = None

    def hang(self) -> None:
        """Let it stand still: it keeps its connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    @property
    def _socket(self) -> Path:
        return self._folder / "redis.sock"

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0


def _ends_with_us() -> list[str]:
    """What makes it stop when the tests are killed; its folder is left behind then."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
