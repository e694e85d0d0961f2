"""The console on a local socket, for a technician who came by ssh: the same bytes as on a cable.

Answers for the socket's bounds. It has mode 600, as the control socket has: whoever may open it is
the agent's user. A client that never reads loses its connection, and nothing else happens.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from taprail_terminal.console.conversation import Carrying, answer, full
from taprail_terminal.console.frames import Decoder
from taprail_terminal.private_socket import bound

CONSOLE_SOCKET: Final = "console.sock"
MAX_CLIENTS: Final = 4
IDLE_LIMIT_S: Final = 600.0
WRITE_LIMIT_S: Final = 5.0
_READ_BYTES: Final = 4096


class SocketConsole:
    """Serves commands on a socket at `path` until it is cancelled."""

    def __init__(self, path: Path, commands: Carrying) -> None:
        self._path = path
        self._commands = commands
        self._clients: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Listen; raises OperatorError when the path cannot be used."""
        listener = bound(self._path, "console socket")
        server = await asyncio.start_unix_server(self._accept, sock=listener)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            writer.write(full())
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError):
            writer.transport.abort()  # gone, or it never reads: what waits for it goes too
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = Decoder()
        while True:
            async with asyncio.timeout(IDLE_LIMIT_S):
                data = await reader.read(_READ_BYTES)
            if not data:
                return
            for item in decoder.feed(data):
                writer.write(await answer(self._commands, item))
                async with asyncio.timeout(WRITE_LIMIT_S):
                    await writer.drain()
