"""A console on a bad cable, with others at its socket meanwhile: every answer that is believed is
the answer to its own question, and none is waited for in vain once the cable is good."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import serial

from taprail_terminal.console import serial_port, socket_port
from taprail_terminal.console.commands import Commands
from taprail_terminal.console.frames import Decoder, Frame, Garbled, Line, encode
from taprail_terminal.console.serial_port import SerialConsole
from taprail_terminal.console.socket_port import MAX_CLIENTS, SocketConsole
from tests.support.console_client import ConsoleClient
from tests.support.console_probes import Answers, make_desk
from tests.support.noisy_cable import NoisyModem

LIMIT_S = 30.0
QUESTIONS = ("status", "version", "last", "queue list", "config get", "log tail", "help", "clock")
WRONG = ("", "sttus", "queue show", "log tail x", "\x00\xff", "reader")


@asynccontextmanager
async def console(
    folder: Path, cable: NoisyModem | None = None, answers: Answers | None = None
) -> AsyncIterator[Path]:
    """A console on the cable's far end and on a socket, whose path is given."""
    commands = Commands(await make_desk(folder, answers))
    socket = folder / "console.sock"
    running = [asyncio.create_task(SocketConsole(socket, commands).run())]
    if cable is not None:
        running.append(asyncio.create_task(SerialConsole(str(cable.far), commands).run()))
    try:
        (await ConsoleClient.open_patiently(socket)).close()
        yield socket
        assert not [task for task in running if task.done()]  # nothing has ended a console
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Talk:
    """A program on the near end that believes what the format lets it believe."""

    def __init__(self, cable: NoisyModem, rng: random.Random) -> None:
        self._cable, self._rng = cable, rng
        self._asked: dict[str, str] = {}
        self.believed = 0

    def run(self, rounds: int) -> None:
        """So many questions on a bad cable, which is pulled now and then."""
        for at in range(0, rounds, 10):
            with contextlib.suppress(OSError), self._port() as line:
                for number in range(at, at + 10):
                    self._ask(line, f"q{number}")
                    self._listen(line, 0.02)
                if self._rng.random() < 0.5:
                    self._cable.pull()
            if not self._cable.near.exists():
                self._cable.plug()

    def settle(self) -> dict[str, Any]:
        """On a good cable: what is asked is answered."""
        self._cable.noisy.clear()
        deadline_s = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline_s:
            with contextlib.suppress(OSError), self._port() as line:
                line.write(b"\n" + encode(Frame("end", {"command": "version"})))
                self._asked["end"] = "version"
                for frame in self._listen(line, 1.0):
                    if frame.id == "end":
                        return frame.body
        raise AssertionError("the console does not answer any more")

    def _port(self) -> Any:
        return serial.Serial(str(self._cable.near), 115_200, timeout=0.02, write_timeout=1)

    def _ask(self, line: Any, name: str) -> None:
        command = self._rng.choice(QUESTIONS)
        self._asked[name] = command
        if self._rng.random() < 0.3:
            line.write(self._rng.choice(WRONG).encode() + b"\r\n")
        line.write(encode(Frame(name, {"command": command})))

    def _listen(self, line: Any, seconds: float) -> list[Frame]:
        decoder, heard = Decoder(), list[Frame]()
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            for item in decoder.feed(line.read(4096)):
                if isinstance(item, Frame):
                    self._check(item)
                    heard.append(item)
        return heard

    def _check(self, frame: Frame) -> None:
        if "command" in frame.body:  # whose question was refused unread is nobody's answer
            assert frame.body["command"] == self._asked[frame.id]
            self.believed += 1


async def ask_in_turn(socket: Path, rng: random.Random, rounds: int) -> None:
    """A program at the socket, where nothing is lost: each answer is its own question's."""
    client = await ConsoleClient.open(socket)
    try:
        for _ in range(rounds):
            command = rng.choice(QUESTIONS)
            assert (await client.ask(command))["command"] == command
    finally:
        client.close()


@pytest.mark.parametrize("seed", [1, 2])
async def test_on_a_bad_cable_and_at_the_socket_at_once_no_answer_is_mixed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(serial_port, "_FIRST_RETRY_S", 0.05)
    cable = NoisyModem(tmp_path / "near", tmp_path / "far", seed)
    with cable:
        async with console(tmp_path, cable) as socket:
            talk = Talk(cable, random.Random(seed))
            clients = [ask_in_turn(socket, random.Random(seed + n), 40) for n in range(2)]
            await asyncio.gather(asyncio.to_thread(talk.run, 60), *clients)
            body = await asyncio.to_thread(talk.settle)
    assert body["data"]["terminalId"] == "term_test"
    assert talk.believed > 5  # it was not noise alone


async def test_any_bytes_at_the_socket_end_nothing(tmp_path: Path) -> None:
    rng = random.Random(7)
    async with console(tmp_path) as socket:
        client = await ConsoleClient.open(socket)
        for size in (1, 100, 5_000, 200_000):
            await client.say(rng.randbytes(size).replace(b"\n", b"\r") + b"\n")
        await client.say(b"x" * 200_000 + b"\n" + encode(Frame("end", {"command": "version"})))
        while not (isinstance(item := await client.hear(), Frame) and item.id == "end"):
            assert isinstance(item, Line | Frame), item
        client.close()


async def test_a_client_that_never_reads_is_let_go_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_port, "WRITE_LIMIT_S", 0.2)
    async with console(tmp_path) as socket:
        reader, writer = await asyncio.open_unix_connection(str(socket), limit=1024)
        question = encode(Frame("deaf", {"command": "config get"}))
        with contextlib.suppress(ConnectionError):
            for _ in range(2_000):  # far more answers than any buffer holds
                writer.write(question)
            await asyncio.wait_for(writer.drain(), LIMIT_S)
        await ask_in_turn(socket, random.Random(1), 10)
        writer.close()
        # What came before it was let go is all there is: it ends.
        heard = b""
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.wait_for(reader.read(65_536), LIMIT_S):
                heard += data
    assert heard.count(b"#TR1") < 2_000


async def test_who_comes_too_many_is_told_so(tmp_path: Path) -> None:
    async with console(tmp_path) as socket:
        clients = [await ConsoleClient.open(socket) for _ in range(MAX_CLIENTS)]
        for client in clients:
            await client.ask("version")  # each has its place
        late = await ConsoleClient.open(socket)
        said, frame = await late.hear(), await late.hear()
        assert isinstance(said, Line)
        assert said.text == "? too many consoles are open here: close one of them"
        assert isinstance(frame, Frame)
        assert frame.body["exitCode"] == 2
        with pytest.raises(EOFError):
            await late.hear()
        for client in clients:
            client.close()


async def test_a_person_who_types_ahead_too_far_is_told_so(tmp_path: Path) -> None:
    answers = Answers()
    answers.outbox_hangs = True
    cable = NoisyModem(tmp_path / "near", tmp_path / "far", 0)
    cable.noisy.clear()

    def type_ahead() -> list[str]:
        decoder, told = Decoder(), list[str]()
        with serial.Serial(str(cable.near), 115_200, timeout=0.05) as line:
            deadline_s = time.monotonic() + LIMIT_S
            while not told and time.monotonic() < deadline_s:
                line.write(b"status\r\n" * 12)
                items = decoder.feed(line.read(4096))
                assert not any(isinstance(item, Garbled) for item in items)
                told += [item.text for item in items if isinstance(item, Line)]
        return told

    with cable:
        async with console(tmp_path, cable, answers):
            told = await asyncio.to_thread(type_ahead)
    assert set(told) == {"? busy: wait for the answers before asking more"}
