"""Runs inside a namespace of its own: pcscd, and connections to its vpcd driver for who is outside.

    python inside.py FOLDER CONTROL_FD [shared]

FOLDER becomes this namespace's /run/pcscd, so that its socket can be reached from outside, while
vpcd, which listens on all addresses, has a network that nobody else is in. One byte on the control
socket asks for something, one byte answers: S start (or restart), U the same without any reader,
Q stop, C a connection to the reader's first slot, handed over as a descriptor. The end of the
control socket is the end. With `shared` there is no namespace, and one of these at a time.
Imports nothing of ours, so that it starts fast.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

RUN_DIR = Path("/run/pcscd")
CONFIG, NO_READERS = "reader.conf", "no-readers.conf"
VPCD_PORT = 35963
_MS_BIND = 0x1000  # mount(2)
_LOCK = Path("/run/lock/taprail-pcscd")
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1  # netdevice(7)
_POLL_S = 0.005
_START_LIMIT_S, _STOP_LIMIT_S = 10.0, 5.0


class Daemon:
    """One pcscd; started with `config` it has the readers of that file and no others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, config: str) -> None:
        self.stop()
        for leftover in ("pcscd.comm", "pcscd.pid"):
            (RUN_DIR / leftover).unlink(missing_ok=True)
        command = ["pcscd", "--foreground", "--error", "--config", str(self._folder / config)]
        with (self._folder / "pcscd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + _START_LIMIT_S
        while not (RUN_DIR / "pcscd.comm").exists():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"pcscd does not start: see {self._folder}/pcscd.log")
            time.sleep(_POLL_S)  # it tells nobody when it listens

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:  # it waits for a card that never answers
            process.kill()
            process.wait()


def connect() -> socket.socket:
    """A connection to vpcd's first slot: a card in it."""
    deadline_s = time.monotonic() + _START_LIMIT_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", VPCD_PORT), timeout=1.0)
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(_POLL_S)


def serve(daemon: Daemon, control: socket.socket) -> None:
    """Do what is asked until the control socket is closed."""
    while order := control.recv(1):
        if order == b"S":
            daemon.start(CONFIG)
        elif order == b"U":
            daemon.start(NO_READERS)
        elif order == b"Q":
            daemon.stop()
        elif order == b"C":
            with connect() as card:
                card.settimeout(None)  # who gets it shares its flags
                descriptor = array.array("i", [card.fileno()])
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)
                control.sendmsg([order], [rights])
            continue
        control.sendall(order)


def _isolate(folder: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not RUN_DIR.exists():  # not even root's mapping may make it: give /run a new bottom
        _mount(libc, b"tmpfs", b"/run", b"tmpfs", 0)
        RUN_DIR.mkdir()
    _mount(libc, os.fsencode(folder), os.fsencode(RUN_DIR), None, _MS_BIND)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        fcntl.ioctl(anything, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))


def _mount(libc: ctypes.CDLL, source: bytes, target: bytes, kind: bytes | None, how: int) -> None:
    if libc.mount(source, target, kind, ctypes.c_ulong(how), None) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount on {target.decode()}")


def _take_turns() -> None:
    """Wait until nobody else uses this machine's one /run/pcscd; the lock goes with the process."""
    handle = os.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    RUN_DIR.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(RUN_DIR / "pcscd.comm")) == 0:
            raise RuntimeError("a pcscd of this machine is in the way: stop it")


def main() -> None:
    """Isolate, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us
    folder, control = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    if "shared" in sys.argv[3:]:
        _take_turns()
    else:
        _isolate(folder)
    daemon = Daemon(folder)
    try:
        serve(daemon, control)
    finally:
        daemon.stop()


if __name__ == "__main__":
    main()
