"""`python -m tests.bench.console_traffic PORT SOCKET`: technicians who ask without end.

Reads `go` and `stop` from stdin; answers each with a line of JSON, `stop` with how many answers
came since `go`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final

import serial

from taprail_terminal.console.frames import Decoder, Frame, encode

_QUESTIONS: Final = (
    *("status", "last", "queue list", "config get", "log tail", "clock", "version"),
    *("reader info", "net test", "queue export", "selftest", "bundle"),
)
_ANSWER_LIMIT_S: Final = 40.0
_DEAF_EVERY_S: Final = 0.1


class Traffic:
    """All of them; `going` is cleared while they are silent."""

    def __init__(self, port: Path, socket: Path) -> None:
        self._port, self._socket = port, socket
        self.going = asyncio.Event()
        self.answers = 0

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(
            self._at_serial_line(), self._at_socket(), self._deaf(), self._orders()
        )

    async def _orders(self) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while order := (await reader.readline()).decode().strip():
            if order == "go":
                self.answers = 0
                self.going.set()
            else:
                self.going.clear()
            sys.stdout.write(json.dumps({"answers": self.answers}) + "\n")
            sys.stdout.flush()
        sys.exit()

    async def _at_serial_line(self) -> None:
        for name, question in _asked():
            await self.going.wait()
            await asyncio.to_thread(self._ask_port, Frame(name, question))
            self.answers += 1

    def _ask_port(self, frame: Frame) -> None:
        with serial.Serial(str(self._port), 115_200, timeout=_ANSWER_LIMIT_S) as line:
            line.write(b"\n" + encode(frame))
            decoder = Decoder()
            while True:
                data = line.read_until(b"\n")
                if not data:
                    raise TimeoutError(f"no answer to {frame.body}")
                if any(isinstance(item, Frame) for item in decoder.feed(data)):
                    return

    async def _at_socket(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=2**17)
        for name, question in _asked():
            await self.going.wait()
            writer.write(encode(Frame(name, question)))
            await asyncio.wait_for(reader.readline(), _ANSWER_LIMIT_S)
            self.answers += 1

    async def _deaf(self) -> None:
        """Asks and never reads; when it is let go, it comes again."""
        question = encode(Frame("deaf", {"command": "config get"}))
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_unix_connection(str(self._socket), limit=256)
                while not writer.is_closing():
                    await self.going.wait()
                    writer.write(question)
                    await writer.drain()
                    await asyncio.sleep(_DEAF_EVERY_S)


def _asked() -> Iterator[tuple[str, dict[str, Any]]]:
    for number, question in zip(count(), cycle(_QUESTIONS), strict=False):
        yield f"q{number}", {"command": question}


if __name__ == "__main__":
    asyncio.run(Traffic(Path(sys.argv[1]), Path(sys.argv[2])).run())
