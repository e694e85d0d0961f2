"""The console over a real serial line: the terminal's end on asyncio, the technician's on pyserial.

`taprail diag` runs as its own process, as a technician starts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import serial

from taprail_common.errors import LinkError
from taprail_hwsim.null_modem import NullModem
from taprail_terminal.console import serial_port
from taprail_terminal.console.commands import Commands
from taprail_terminal.console.frames import Decoder, Frame, encode
from taprail_terminal.console.selftest import CHECK_NAMES
from taprail_terminal.console.serial_port import SerialConsole
from taprail_terminal.diag import ask, holder_of
from tests.support.console_probes import Answers, make_desk

TAPRAIL = Path(sys.executable).with_name("taprail")
TIMEOUT_S = 10.0


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[NullModem]:
    with NullModem(tmp_path / "near", tmp_path / "far") as modem:
        yield modem


@pytest.fixture
async def answers(cable: NullModem, tmp_path: Path) -> AsyncIterator[Answers]:
    """A console that serves the far end of the cable; the test chooses what the parts answer."""
    chosen = Answers()
    console = SerialConsole(str(cable.far), Commands(await make_desk(tmp_path, chosen)))
    running = asyncio.create_task(console.run())
    await asyncio.to_thread(_ask_patiently, cable, "version")
    yield chosen
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _near(cable: NullModem) -> Any:
    return serial.Serial(str(cable.near), 115_200, timeout=0.05, exclusive=True)


def _ask(cable: NullModem, command: str, timeout_s: float = TIMEOUT_S) -> Mapping[str, Any]:
    with _near(cable) as line:
        return ask(line, command, timeout_s)


def _type(cable: NullModem, text: str, until: str) -> str:
    """Type like a person, read until the words come."""
    with _near(cable) as line:
        line.write(text.encode())
        deadline_s = time.monotonic() + TIMEOUT_S
        seen = b""
        while until.encode() not in seen and time.monotonic() < deadline_s:
            seen += line.read(4096)
    return seen.decode()


def _diag(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [str(TAPRAIL), "diag", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )


async def test_status_for_people(cable: NullModem, answers: Answers) -> None:
    done = await asyncio.to_thread(_diag, "--port", str(cable.near), "status")
    assert done.returncode == 0, done.stderr
    assert "phase: ready" in done.stdout
    assert "✔" in done.stdout
    assert "✘" not in done.stdout


async def test_selftest_as_json(cable: NullModem, answers: Answers) -> None:
    done = await asyncio.to_thread(_diag, "--port", str(cable.near), "selftest", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["exitCode"] == 0
    assert answer["data"]["ok"] is True
    assert [check["name"] for check in answer["data"]["checks"]] == list(CHECK_NAMES)


async def test_what_is_wrong_is_shown_with_what_to_do(cable: NullModem, answers: Answers) -> None:
    answers.hello = LinkError("the gateway does not answer")
    done = await asyncio.to_thread(_diag, "selftest", "--port", str(cable.near))
    assert done.returncode == 1
    row = next(line for line in done.stdout.splitlines() if "gateway  " in line)
    assert "✘" in row
    assert "the gateway does not answer" in row
    assert "check the network cable" in row


async def test_a_person_types_and_reads(cable: NullModem, answers: Answers) -> None:
    seen = await asyncio.to_thread(_type, cable, "stauts\b\b\btus\r\n", "buzzer")
    assert "ok     reader      PN532 1.6\r\n" in seen
    assert "#TR1" not in seen


async def test_a_typing_error_is_answered_with_help(cable: NullModem, answers: Answers) -> None:
    seen = await asyncio.to_thread(_type, cable, "sttus\r\n", "help")
    assert seen.startswith("? no command 'sttus': type help")


async def test_noise_before_a_request_and_before_its_answer(
    cable: NullModem, answers: Answers
) -> None:
    cable.noise(b"\x00\xff[    0.000000] Booting Linux\r\n#TR1 zz 5 0000")
    answer = await asyncio.to_thread(_ask, cable, "version")
    assert answer["data"]["terminalId"] == "term_test"


async def test_a_request_that_noise_garbled_is_asked_again(
    cable: NullModem, answers: Answers
) -> None:
    class NoisyOnce:
        """The line as it is, but for one bit of the first request."""

        def __init__(self, line: Any) -> None:
            self._line = line
            self.writes = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._line, name)

        def write(self, data: bytes) -> None:
            self.writes += 1
            self._line.write(data.replace(b"version", b"versioo") if self.writes == 1 else data)

    def talk() -> tuple[Mapping[str, Any], int]:
        with _near(cable) as line:
            noisy = NoisyOnce(line)
            return ask(noisy, "version", TIMEOUT_S), noisy.writes

    answer, writes = await asyncio.to_thread(talk)
    assert answer["command"] == "version"
    assert writes == 2


async def test_two_requests_at_once_are_answered_in_their_order(
    cable: NullModem, answers: Answers
) -> None:
    def talk() -> list[str]:
        decoder, ids = Decoder(), list[str]()
        with _near(cable) as line:
            line.write(encode(Frame("one", {"command": "selftest"})))
            line.write(encode(Frame("two", {"command": "version"})))
            deadline_s = time.monotonic() + TIMEOUT_S
            while len(ids) < 2 and time.monotonic() < deadline_s:
                items = decoder.feed(line.read(4096))
                ids += [item.id for item in items if isinstance(item, Frame)]
        return ids

    assert await asyncio.to_thread(talk) == ["one", "two"]


async def test_more_requests_than_the_queue_holds_are_told_so(
    cable: NullModem, answers: Answers
) -> None:
    answers.outbox_hangs = True
    line = _near(cable)
    line.write(encode(Frame("r0", {"command": "selftest"})))
    async with asyncio.timeout(TIMEOUT_S):
        await answers.asked.wait()  # the first is being carried out, eight may wait

    def talk() -> set[str]:
        decoder, refused = Decoder(), set[str]()
        with line:
            for number in range(1, 12):
                line.write(encode(Frame(f"r{number}", {"command": "selftest"})))
            deadline_s = time.monotonic() + TIMEOUT_S
            while len(refused) < 3 and time.monotonic() < deadline_s:
                for item in decoder.feed(line.read(4096)):
                    if isinstance(item, Frame) and item.body["data"].get("error") == "busy":
                        refused.add(item.id)
        return refused

    assert await asyncio.to_thread(talk) == {"r9", "r10", "r11"}


async def test_an_answer_that_comes_back_by_an_echo_is_not_answered(
    cable: NullModem, answers: Answers
) -> None:
    def talk() -> list[str]:
        decoder, ids = Decoder(), list[str]()
        with _near(cable) as line:
            line.write(encode(Frame("echo", {"exitCode": 0})))
            line.write(b"? no command 'x': type help\r\n")
            line.write(encode(Frame("real", {"command": "version"})))
            deadline_s = time.monotonic() + TIMEOUT_S
            while "real" not in ids and time.monotonic() < deadline_s:
                items = decoder.feed(line.read(4096))
                assert all(isinstance(item, Frame) for item in items)
                ids += [item.id for item in items if isinstance(item, Frame)]
        return ids

    assert await asyncio.to_thread(talk) == ["real"]


async def test_a_client_that_never_reads_costs_only_its_own_answers(
    cable: NullModem, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_port, "_STALL_S", 1.0)
    monkeypatch.setattr(serial_port, "_MAX_WAITING_BYTES", 8192)
    cable.flowing.clear()
    waiting: list[int] = []
    sent: list[bool] = []
    stalled = asyncio.Event()
    send, on_stall = serial_port._Line.send, serial_port._Line._on_stall

    def seen_send(line: serial_port._Line, answer: bytes) -> bool:
        sent.append(send(line, answer))
        waiting.append(len(line._waiting))
        return sent[-1]

    def seen_stall(line: serial_port._Line) -> None:
        on_stall(line)
        stalled.set()

    monkeypatch.setattr(serial_port._Line, "send", seen_send)
    monkeypatch.setattr(serial_port._Line, "_on_stall", seen_stall)

    def flood() -> None:
        with _near(cable) as line:
            for number in range(200):
                line.write(encode(Frame(f"r{number}", {"command": "selftest"})))

    await asyncio.to_thread(flood)
    async with asyncio.timeout(TIMEOUT_S):
        await stalled.wait()
    assert max(waiting) <= 8192
    assert not all(sent)  # what did not fit was dropped whole
    # The loop was never blocked, and who comes next is answered.
    cable.flowing.set()
    answer = await asyncio.to_thread(_ask, cable, "version")
    assert answer["command"] == "version"


def _ask_patiently(cable: NullModem, command: str) -> Mapping[str, Any]:
    """Ask until somebody listens: what arrives before the console opens its port is lost."""
    for _ in range(20):
        with contextlib.suppress(LinkError):
            return _ask(cable, command, 0.5)
    raise AssertionError("the console did not come back")


async def test_a_terminal_that_is_not_there_is_said_in_time(cable: NullModem) -> None:
    with pytest.raises(LinkError, match=r"no answer in 0\.3 s"):
        await asyncio.to_thread(_ask, cable, "status", 0.3)


def test_a_port_that_is_not_there_lists_the_ones_that_are(tmp_path: Path) -> None:
    done = _diag("--port", str(tmp_path / "ttyUSB7"), "status")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: no serial port {tmp_path}/ttyUSB7: ports found here: ")


def test_a_port_that_is_held_names_the_holder(cable: NullModem) -> None:
    with _near(cable):
        done = _diag("--port", str(cable.near), "status")
    assert done.returncode == 2
    name = Path("/proc/self/comm").read_text().strip()
    assert done.stderr == (
        f"error: {cable.near} is held by PID {os.getpid()} ({name}): end it: kill {os.getpid()}\n"
    )


def test_a_file_that_is_no_port_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = _diag("--port", str(file), "status")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {file} cannot be opened")
    assert len(done.stderr.splitlines()) == 1


def test_nobody_holds_a_port_that_nobody_opened(tmp_path: Path) -> None:
    assert holder_of(tmp_path / "nothing") is None


def test_an_unknown_question_is_a_usage_error(tmp_path: Path) -> None:
    done = _diag("--port", str(tmp_path), "dance")
    assert done.returncode == 2
    assert "dance" in done.stderr
