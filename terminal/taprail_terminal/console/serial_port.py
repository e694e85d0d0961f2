"""The console on a serial line, beside the running sale.

Answers for the line: it is opened again when a cable was pulled, requests wait in a short queue,
and a far end that never reads costs its own answers, nothing else. What is asked is carried out in
`commands`; how it is written is in `frames`.
"""

from __future__ import annotations

import asyncio
import os
import termios
from typing import Any, Final

import serial
import structlog

from taprail_terminal.console import conversation
from taprail_terminal.console.conversation import Carrying
from taprail_terminal.console.frames import MAX_JSON_BYTES, Decoder, Item

BAUD: Final = 115_200
"""What a Raspberry Pi's own serial console uses, and what every terminal program offers first."""

_READ_BYTES: Final = 4096
_MAX_WAITING_REQUESTS: Final = 8
_MAX_WAITING_BYTES: Final = 2 * MAX_JSON_BYTES
# A line that takes nothing for this long has no reader; what waits would only greet the next one.
_STALL_S: Final = 10.0
_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 10.0


class SerialConsole:
    """Serves commands on one serial port until it is cancelled."""

    def __init__(self, port: str, commands: Carrying) -> None:
        self._port = port
        self._commands = commands
        self._log = structlog.get_logger().bind(port=port)

    async def run(self) -> None:
        """Open, serve, and open again when the line is lost; waits longer after each failure."""
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                line = await asyncio.to_thread(_open, self._port)
            except OSError as exc:
                if retry_s == _FIRST_RETRY_S:  # once is enough for a cable that is not there
                    self._log.warning("console.closed", reason=str(exc))
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, _LAST_RETRY_S)
                continue
            retry_s = _FIRST_RETRY_S
            self._log.info("console.open")
            await self._serve(line)
            self._log.warning("console.lost")
            await asyncio.sleep(retry_s)

    async def _serve(self, port: Any) -> None:
        """Serve an open port until it is lost."""
        line = _Line(port.fileno())
        worker = asyncio.create_task(self._answer_all(line))
        try:
            await line.lost.wait()
        finally:
            line.stop()
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
            port.close()

    async def _answer_all(self, line: _Line) -> None:
        while True:
            item = await line.requests.get()
            said = await conversation.answer(self._commands, item)
            if said and not line.send(said):
                self._log.warning("console.answer_dropped", reason="the far end does not read")


class _Line:
    """An open port's two directions on the event loop, both bounded."""

    def __init__(self, fd: int) -> None:
        self.requests: asyncio.Queue[Item] = asyncio.Queue(_MAX_WAITING_REQUESTS)
        self.lost = asyncio.Event()
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder()
        self._waiting = bytearray()
        self._stall: asyncio.TimerHandle | None = None
        self._loop.add_reader(fd, self._on_readable)

    def send(self, answer: bytes) -> bool:
        """Queue an answer whole; False when what waits already is too much."""
        if self.lost.is_set() or len(self._waiting) + len(answer) > _MAX_WAITING_BYTES:
            return False
        if not self._waiting:
            self._loop.add_writer(self._fd, self._on_writable)
            self._watch_for_stall()
        self._waiting += answer
        return True

    def stop(self) -> None:
        """Leave the event loop; the port itself is closed by its owner."""
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        if self._stall is not None:
            self._stall.cancel()

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # readable and empty is how a pulled cable looks
            self._lose()
            return
        for item in self._decoder.feed(data):
            self._take(item)

    def _take(self, item: Item) -> None:
        try:
            self.requests.put_nowait(item)
        except asyncio.QueueFull:
            if said := conversation.busy(item):
                self.send(said)

    def _on_writable(self) -> None:
        try:
            count = os.write(self._fd, self._waiting)
        except BlockingIOError:
            return
        except OSError:
            self._lose()
            return
        del self._waiting[:count]
        self._watch_for_stall()
        if not self._waiting:
            self._loop.remove_writer(self._fd)

    def _watch_for_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self._stall = self._loop.call_later(_STALL_S, self._on_stall)

    def _on_stall(self) -> None:
        if not self._waiting:
            return
        # What the driver holds goes too; the line end makes the next answer a line of its own.
        try:
            termios.tcflush(self._fd, termios.TCOFLUSH)
        except termios.error:
            self._lose()
            return
        self._waiting[:] = b"\n"

    def _lose(self) -> None:
        self.stop()
        self.lost.set()


def _open(port: str) -> Any:
    # Time-outs of zero: the event loop waits, not the port. `exclusive` keeps a second program out.
    return serial.Serial(port, BAUD, timeout=0, write_timeout=0, exclusive=True)
