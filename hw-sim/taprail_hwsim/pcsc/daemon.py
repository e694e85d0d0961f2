"""pcscd with its vpcd driver, in a namespace of its own, so that several can run side by side.

Answers for finding the programs, for the reader's configuration and for the process inside. Where
user namespaces are forbidden, root gets one pcscd at a time, under a lock.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from array import array
from pathlib import Path
from types import TracebackType
from typing import Final

from taprail_hwsim.pcsc import inside

SOCKET_VARIABLE: Final = "PCSCLITE_CSOCK_NAME"
"""libpcsclite looks for pcscd where this says. It remembers that for the life of a process, so all
that one process starts have to have the same folder."""

_LIBRARY: Final = "libifdvpcd.so*"
_LIBRARY_FOLDERS: Final = (
    # Where .ci/setup unpacks Debian's package.
    Path(__file__).resolve().parents[3] / "build/vpcd/usr/lib/pcsc/drivers/serial",
    Path("/usr/lib/pcsc/drivers/serial"),
)
_READER_CONF: Final = """\
FRIENDLYNAME "Virtual PCD"
DEVICENAME   /dev/null:0x{port:04X}
LIBPATH      {library}
CHANNELID    0x{port:04X}
"""
_ANSWER_LIMIT_S: Final = 15.0
_PROGRAMS: Final = ("pcscd", "unshare")
_SYSTEM_PATH: Final = "/usr/sbin:/sbin"
_NAMESPACES: Final = ("unshare", "--user", "--map-root-user", "--mount", "--net")


class PcscMissingError(Exception):
    """pcscd or its vpcd driver is not here, or cannot be run; the message says what to do."""


class Pcscd:
    """A pcscd that listens in `folder` (a short path: a socket lies in it). A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.socket_path = self._folder / "pcscd.comm"

    def __enter__(self) -> Pcscd:
        """Start it. A second `with` around the same one changes nothing until its end."""
        if self._process is not None:
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        reader = _READER_CONF.format(port=inside.VPCD_PORT, library=_find_library())
        (self._folder / inside.CONFIG).write_text(reader)
        (self._folder / inside.NO_READERS).write_text("")
        if _namespaces_work():
            self._enter(list(_NAMESPACES), [])
        elif os.geteuid() == 0:
            self.socket_path = inside.RUN_DIR / "pcscd.comm"
            self._enter([], ["shared"])
        else:
            raise PcscMissingError("user namespaces are forbidden here: run this as root")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process, control = self._process, self._control
        if process is None or control is None:
            return
        control.close()
        process.wait(_ANSWER_LIMIT_S)
        self._process = self._control = None

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to find this pcscd."""
        return {SOCKET_VARIABLE: str(self.socket_path)}

    def start(self, *, with_reader: bool = True) -> None:
        """Start it, or start it anew; without the reader it is as after unplugging it."""
        self._ask(b"S" if with_reader else b"U")

    def stop(self) -> None:
        """Stop it: who uses it finds nobody there."""
        self._ask(b"Q")

    def insert(self) -> socket.socket:
        """A line to the reader's slot: who holds it open is the card in there."""
        if self._control is None:
            raise PcscMissingError("pcscd was never started")
        self._control.sendall(b"C")
        rights = array("i")
        answer, ancillary, _, _ = self._control.recvmsg(1, socket.CMSG_SPACE(rights.itemsize))
        if answer != b"C" or not ancillary:
            raise PcscMissingError(f"pcscd is gone: see {self._folder}/pcscd.log")
        rights.frombytes(ancillary[0][2][: rights.itemsize])
        return socket.socket(fileno=rights[0])

    def _enter(self, prefix: list[str], flags: list[str]) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_ANSWER_LIMIT_S)
        with theirs, (self._folder / "pcscd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *prefix,
                    *(sys.executable, "-S", inside.__file__, str(self._folder)),
                    *(str(theirs.fileno()), *flags),
                ],
                pass_fds=[theirs.fileno()],
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": _path()},
            )
        self.start()

    def _ask(self, order: bytes) -> None:
        if self._control is None:
            raise PcscMissingError("pcscd was never started")
        self._control.sendall(order)
        if self._control.recv(1) != order:
            raise PcscMissingError(f"pcscd does not start: see {self._folder}/pcscd.log")


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}"


def _find_library() -> Path:
    for program in _PROGRAMS:
        if shutil.which(program, path=_path()) is None:
            raise PcscMissingError(f"no {program} here: run `.ci/setup pcsc`")
    for folder in _LIBRARY_FOLDERS:
        for library in sorted(folder.glob(_LIBRARY)):
            return library.resolve()
    raise PcscMissingError("no vpcd driver for pcscd here: run `.ci/setup pcsc`")


def _namespaces_work() -> bool:
    tried = subprocess.run([*_NAMESPACES, "true"], capture_output=True, check=False)
    return tried.returncode == 0
