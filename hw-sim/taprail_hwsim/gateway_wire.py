"""The wire between a terminal and its gateway: a TCP relay that can fall silent or lose answers.

Answers for what a network does to a request; it reads no more of HTTP than the first word. Nothing
of the gateway's signatures can be changed here without the terminal noticing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Self
from urllib.parse import urlsplit

_CHUNK_BYTES: Final = 64 * 1024
_POST: Final = b"POST "


class GatewayWire:
    """Use as `async with GatewayWire(gateway_url) as wire`; the terminal is given `wire.url`."""

    def __init__(self, gateway_url: str) -> None:
        self._target = urlsplit(gateway_url)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._lose = 0
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._flowing.set()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def fall_silent(self) -> None:
        """The gateway is away, as after a power cut: nothing is refused, nothing is answered."""
        self._flowing.clear()

    def mend(self) -> None:
        """It is back. What was on the wire is lost, and so are the connections."""
        self._lose = 0
        self._flowing.set()

    def lose_answers(self, count: int) -> None:
        """The next so many posts reach the gateway, and their answers do not come back."""
        self._lose = count

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pump = asyncio.current_task()
        if pump is not None:
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)
        with contextlib.suppress(OSError):
            if self._flowing.is_set():
                await self._carry(reader, writer)
            else:
                await self._flowing.wait()
        writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._target.hostname, self._target.port)
        doomed = asyncio.Event()
        ways = [
            asyncio.ensure_future(self._ask(reader, there[1], doomed)),
            asyncio.ensure_future(self._answer(there[0], writer, doomed)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there[1].close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while (data := await reader.read(_CHUNK_BYTES)) and await self._still_flows():
            if data.startswith(_POST) and self._lose:
                self._lose -= 1
                doomed.set()
            writer.write(data)
            await writer.drain()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while (data := await reader.read(_CHUNK_BYTES)) and await self._still_flows():
            if doomed.is_set():
                return
            writer.write(data)
            await writer.drain()

    async def _still_flows(self) -> bool:
        """False once the silence is over in which these bytes were lost."""
        if self._flowing.is_set():
            return True
        await self._flowing.wait()
        return False
