"""Two pseudo-terminals and a cable between them: serial ports for both ends of a conversation."""

from __future__ import annotations

import os
import select
import threading
import tty
from pathlib import Path
from types import TracebackType
from typing import Final

_READ_BYTES: Final = 4096
_JOIN_TIMEOUT_S: Final = 5.0


class NullModem:
    """`near` and `far` are paths that keep their names when the cable is replaced.

    What is written to one is read from the other, until `pull`. Clearing `flowing` holds what goes
    towards `near`, as a far end does that never reads.
    """

    def __init__(self, near: Path, far: Path) -> None:
        self.near = near
        self.far = far
        self.flowing = threading.Event()
        self.flowing.set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> NullModem:
        self.plug()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.pull()

    def plug(self) -> None:
        """Lay a new cable."""
        # Both slaves stay open, so that a port outlives its users; closing a master hangs it up.
        self._near_fd, near_slave = _new_port(self.near)
        self._far_fd, far_slave = _new_port(self.far)
        self._stopped_fd, self._stop_fd = os.pipe()
        self._slaves = [near_slave, far_slave]
        self._threads = [
            threading.Thread(target=self._carry, args=(self._near_fd, self._far_fd, None)),
            threading.Thread(target=self._carry, args=(self._far_fd, self._near_fd, self.flowing)),
        ]
        for thread in self._threads:
            thread.start()

    def pull(self) -> None:
        """Take cable and adapters away: whoever has a port open finds it dead. Twice is once."""
        if not self._threads:
            return
        os.write(self._stop_fd, b"x")
        self.flowing.set()
        for thread in self._threads:
            thread.join(_JOIN_TIMEOUT_S)
        for fd in (self._near_fd, self._far_fd, self._stopped_fd, self._stop_fd, *self._slaves):
            os.close(fd)
        self._threads = []
        self.near.unlink(missing_ok=True)
        self.far.unlink(missing_ok=True)

    def noise(self, data: bytes) -> None:
        """Let bytes appear at both ends that nobody sent."""
        os.write(self._near_fd, data)
        os.write(self._far_fd, data)

    def _carry(self, source: int, target: int, gate: threading.Event | None) -> None:
        while self._wait_for([source], []):
            if gate is not None:
                gate.wait()
            data = os.read(source, _READ_BYTES)
            while data and self._wait_for([], [target]):
                data = data[os.write(target, data) :]

    def _wait_for(self, readable: list[int], writable: list[int]) -> bool:
        """False when the cable is being pulled."""
        ready, _, _ = select.select([*readable, self._stopped_fd], writable, [])
        return self._stopped_fd not in ready


def _new_port(link: Path) -> tuple[int, int]:
    master, slave = os.openpty()
    tty.setraw(slave)
    link.unlink(missing_ok=True)  # of a run that was killed
    link.symlink_to(os.ttyname(slave))
    return master, slave
