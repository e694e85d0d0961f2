"""A technician's program at a terminal's console socket: frames out, answers by their id in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Self

from nacl.signing import SigningKey

from taprail_common.signing import Domain, gateway_id, public_key_text, sign
from taprail_common.technicians import ABOUT_ROSTER, Roster, Technician
from taprail_terminal.console.frames import Decoder, Frame, Item, encode
from taprail_terminal.console.proof import prove

ANSWER_LIMIT_S = 60.0


class ConsoleClient:
    """One connection. `heard` is all that ever came, as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = Decoder()
        self._items: list[Item] = []
        self._asked = 0
        self.heard = b""

    @classmethod
    async def open(cls, socket: Path) -> Self:
        return cls(*await asyncio.open_unix_connection(str(socket)))

    @classmethod
    async def open_patiently(cls, socket: Path) -> Self:
        """The same, once somebody listens."""
        async with asyncio.timeout(ANSWER_LIMIT_S):
            while True:
                try:
                    return await cls.open(socket)
                except OSError:
                    await asyncio.sleep(0.05)  # there is no event for a socket that is not there

    def close(self) -> None:
        self._writer.close()

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def hear(self) -> Item:
        """The next item; raises EOFError when the console has hung up."""
        while not self._items:
            data = await asyncio.wait_for(self._reader.read(4096), ANSWER_LIMIT_S)
            if not data:
                raise EOFError("the console hung up")
            self.heard += data
            self._items = self._decoder.feed(data)
        return self._items.pop(0)

    async def ask(self, command: str, *args: str, **more: Any) -> dict[str, Any]:
        """The answer's body; nothing else may come meanwhile."""
        self._asked += 1
        name = f"q{self._asked}"
        await self.say(encode(Frame(name, {"command": command, "args": list(args), **more})))
        item = await self.hear()
        assert isinstance(item, Frame), item
        assert item.id == name
        return item.body

    async def give(self, key: SigningKey, command: str, *args: str) -> dict[str, Any]:
        """A command that a technician signs."""
        challenge = (await self.ask("challenge"))["data"]
        words = [*command.split(), *args]
        proof = prove(key, challenge["terminalId"], challenge["nonce"], words)
        return await self.ask(command, *args, **proof.to_json())


def store_roster(
    state_dir: Path, gateway: SigningKey, terminal_id: str, key: SigningKey, now_ms: int
) -> None:
    """What a terminal has fetched of its gateway some time: a list with one technician."""
    public = public_key_text(key.verify_key)
    roster = Roster(
        gateway_id=gateway_id(gateway.verify_key),
        terminal_id=terminal_id,
        issued_at=now_ms,
        technicians=tuple(Technician(name=name, public_key=public) for name in ("ana",)),
    )
    body = roster.model_dump_json(by_alias=True).encode()
    signature = sign(gateway, Domain.COMMAND, body, about=ABOUT_ROSTER)
    stored = {"body": body.decode(), "signature": signature}
    (state_dir / "technicians.json").write_text(json.dumps(stored))
