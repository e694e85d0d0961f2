"""Ways to a terminal's console, from the technician's side: a serial port, or its socket over ssh.

Answers for finding ports, for opening one, and for saying who is in the way. Both kinds of line
have the few members of pyserial's that the conversation uses.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import serial
from serial.tools import list_ports

from taprail_common.errors import OperatorError
from taprail_terminal.console.serial_port import BAUD

POLL_S: Final = 0.1
_CONNECT_LIMIT_S: Final = 5.0
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})


class Line(Protocol):
    """An open line, as pyserial has it; OSError when it is lost."""

    timeout: float | None
    write_timeout: float | None

    @property
    def in_waiting(self) -> int: ...
    def read(self, size: int = 1, /) -> bytes: ...
    def write(self, data: bytes, /) -> int | None: ...
    def close(self) -> None: ...


class SocketLine:
    """A console's socket in the words of a serial port."""

    in_waiting = 4096
    """A socket gives what there is; it need not be counted first."""

    def __init__(self, path: Path) -> None:
        self.timeout: float | None = POLL_S
        self.write_timeout: float | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_CONNECT_LIMIT_S)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def read(self, size: int = 1, /) -> bytes:
        """What has come, at most so much; nothing when nothing came in time."""
        self._socket.settimeout(self.timeout)
        try:
            data = self._socket.recv(size)
        except TimeoutError:
            return b""
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the console has closed the socket")
        return data

    def write(self, data: bytes, /) -> int:
        """Send all of it."""
        self._socket.settimeout(self.write_timeout)
        self._socket.sendall(data)
        return len(data)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a terminal's console is."""

    port: str | None = None
    socket: Path | None = None

    def __str__(self) -> str:
        return self.port if self.port is not None else str(self.socket)

    def open(self) -> Line:
        """Open it; raises OperatorError that says what to do."""
        if self.port is not None:
            return _open_port(self.port)
        return _open_socket(cast("Path", self.socket))

    def is_there(self) -> bool:
        """Whether there is anything to open."""
        return Path(str(self)).exists()

    def holder(self) -> Holder | None:
        """Another program that listens on the same port."""
        return None if self.port is None else holder_of(Path(self.port))


@dataclass(frozen=True, slots=True)
class Holder:
    """A program that has a port open."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"PID {self.pid} ({self.name})"


@dataclass(frozen=True, slots=True)
class Port:
    """A serial port of this machine."""

    device: str
    what: str
    is_usb: bool
    holder: Holder | None


def ports() -> list[Port]:
    """The serial ports of this machine, those on USB first."""
    found = [
        Port(item.device, item.description or "", item.vid is not None, _seen(item.device))
        for item in list_ports.comports()
    ]
    return sorted(found, key=lambda each: (not each.is_usb, each.device))


def only_port() -> str:
    """The one port that can be meant; raises OperatorError that lists them."""
    found = ports()
    likely = [each for each in found if each.is_usb] or found
    if len(likely) == 1:
        return likely[0].device
    if not likely:
        raise OperatorError(
            "no serial port here",
            fix="plug the cable in; over ssh, name --socket STATE_DIR/console.sock",
        )
    names = ", ".join(each.device for each in likely)
    raise OperatorError(f"several serial ports: {names}", fix="name one: --port PORT")


def holder_of(port: Path, proc: Path = Path("/proc")) -> Holder | None:
    """Another program that has the port open, as far as we may see."""
    target = port.resolve()
    for process in proc.glob("[0-9]*"):
        if int(process.name) != os.getpid() and target in _open_files(process / "fd"):
            return Holder(int(process.name), _name(process))
    return None


def _seen(device: str) -> Holder | None:
    return holder_of(Path(device))


def _open_files(folder: Path) -> Iterator[Path]:
    try:
        for entry in folder.iterdir():
            yield entry.readlink()
    except OSError:  # not ours to look into, or gone by now
        return


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip() or "?"
    except OSError:
        return "?"


def _open_port(port: str) -> Line:
    try:
        line: Any = serial.Serial(port, BAUD, timeout=POLL_S, exclusive=True)
    except OSError as exc:
        raise _explained(port, exc) from exc
    return cast("Line", line)


def _explained(port: str, exc: OSError) -> OperatorError:
    """Why a port cannot be opened, with what to do about it."""
    if not Path(port).exists():
        found = ", ".join(sorted(item.device for item in list_ports.comports())) or "none"
        return OperatorError(f"no serial port {port}", fix=f"ports found here: {found}")
    if exc.errno in _DENIED:
        return OperatorError(
            f"{port} may not be opened", fix="join the group of serial ports: adduser $USER dialout"
        )
    if (holder := holder_of(Path(port))) is not None:
        return OperatorError(f"{port} is held by {holder}", fix=f"end it: kill {holder.pid}")
    if exc.errno in {errno.EBUSY, errno.EAGAIN}:
        return OperatorError(
            f"{port} is held by another user's program", fix=f"see which: sudo fuser -v {port}"
        )
    return OperatorError(f"{port} cannot be opened ({exc})")


def _open_socket(path: Path) -> Line:
    try:
        return SocketLine(path)
    except FileNotFoundError:
        raise OperatorError(
            f"no socket {path}", fix="is the terminal on? it makes console.sock in its state_dir"
        ) from None
    except PermissionError:
        raise OperatorError(
            f"{path} may not be opened",
            fix="become the agent's user: sudo -u taprail-terminal taprail diag",
        ) from None
    except ConnectionRefusedError:
        raise OperatorError(f"nobody listens at {path}", fix="start the terminal") from None
    except OSError as exc:
        raise OperatorError(f"{path} cannot be opened ({exc})") from exc
