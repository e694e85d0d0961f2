"""The wires between a simulated terminal and its panel, which live in different processes.

The terminal's drivers are real: gpiozero sets pins, luma writes SSD1306 bytes. `PanelWires` takes
both in the terminal's process and sends them, with their time, over a Unix socket; `PanelSocket`
feeds them to the panel in the simulator's. A record is a kind, a time and up to 64 KiB of bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpiozero.pins.mock import MockFactory

from taprail_hwsim.panel.lights import PanelPin

# kind (one byte), seconds of the monotonic clock, length of what follows
_HEADER = struct.Struct("!cdH")
# BCM number of the pin, its level or duty cycle, its PWM frequency in Hz
_PIN = struct.Struct("!Hdd")
NO_FREQUENCY = 0.0

COMMAND, DATA, PIN = b"c", b"d", b"p"


class PanelWires:
    """The terminal's end: a pin factory for gpiozero and a serial interface for luma."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._lock = threading.Lock()

    def pin_factory(self) -> MockFactory:
        """Pins that report every edge."""
        wires = self

        class ReportingPin(PanelPin):
            def _note(self) -> None:
                super()._note()
                edge = self.history[-1]
                wires.send(
                    PIN, _PIN.pack(_pin_number(self), edge.duty, edge.frequency_hz or NO_FREQUENCY)
                )

        return MockFactory(pin_class=ReportingPin)

    # luma.core.interface.serial: what a display driver calls
    def command(self, *command: int) -> None:
        self.send(COMMAND, bytes(command))

    def data(self, data: Sequence[int] | bytes) -> None:
        self.send(DATA, bytes(data))

    def cleanup(self) -> None:
        """The driver is done; the socket stays for the pins."""

    def send(self, kind: bytes, payload: bytes) -> None:
        """Send one record; drivers call from several threads."""
        record = _HEADER.pack(kind, time.monotonic(), len(payload)) + payload
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._socket.sendall(record)


def _pin_number(pin: Any) -> int:
    # gpiozero 2 names pins "GPIO17".
    return int(str(pin.info.name).removeprefix("GPIO"))


class PanelSocket:
    """The simulator's end: gives each record to one of three functions."""

    def __init__(
        self,
        path: Path,
        *,
        on_command: Callable[[float, bytes], None],
        on_data: Callable[[float, bytes], None],
        on_pin: Callable[[float, int, float, float], None],
    ) -> None:
        self._path = path
        self._on_command = on_command
        self._on_data = on_data
        self._on_pin = on_pin
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                header = await reader.readexactly(_HEADER.size)
                kind, at_s, length = _HEADER.unpack(header)
                self._take(kind, at_s, await reader.readexactly(length))
        writer.close()

    def _take(self, kind: bytes, at_s: float, payload: bytes) -> None:
        if kind == PIN:
            self._on_pin(at_s, *_PIN.unpack(payload))
        elif kind == COMMAND:
            self._on_command(at_s, payload)
        else:
            self._on_data(at_s, payload)
