"""`taprail diag` on real lines: a socket, a cable that gets pulled, a window, a real gateway."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from rich.console import Console
from typer.testing import CliRunner

from taprail_common.errors import OperatorError, TapRailError
from taprail_common.signing import create_key_file, load_key_file
from taprail_common.technicians import ROSTER_PATH
from taprail_hwsim.null_modem import NullModem
from taprail_terminal import diag_live
from taprail_terminal.console import serial_port
from taprail_terminal.console.commands import Commands
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.frames import Decoder, Frame, encode
from taprail_terminal.console.journal import Journal
from taprail_terminal.console.serial_port import SerialConsole
from taprail_terminal.console.socket_port import SocketConsole
from taprail_terminal.console.sync import tell_changes
from taprail_terminal.console.technicians import Technicians
from taprail_terminal.diag import app
from taprail_terminal.diag_line import Place
from taprail_terminal.diag_shell import completions
from taprail_terminal.diag_talk import LineLostError, Talk
from taprail_terminal.feedback.drivers import Signals
from taprail_terminal.feedback.feedback import Feedback
from taprail_terminal.sale import Phase, View
from tests.integration.test_technicians import issue, kept, linked, revoke
from tests.support.console_probes import Answers, make_desk
from tests.support.gateway_fixtures import TERMINAL, running_gateway

WITHIN_S = 60.0
TAPRAIL = Path(sys.executable).with_name("taprail")


@contextlib.asynccontextmanager
async def on_socket(desk: Desk, path: Path) -> AsyncIterator[Path]:
    """A console that serves a socket."""
    running = asyncio.create_task(SocketConsole(path, Commands(desk)).run())
    async with asyncio.timeout(WITHIN_S):
        while not await _listens(path):
            continue
    try:
        yield path
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _listens(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        await asyncio.sleep(0)
        return False
    writer.close()
    return True


@contextlib.contextmanager
def cable_in(folder: Path) -> Iterator[NullModem]:
    with NullModem(folder / "near", folder / "far") as modem:
        yield modem


def diag(*arguments: object) -> tuple[int, str]:
    """The command in this process; an error as its exit code and its sentence."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if isinstance(result.exception, TapRailError):
        return 2, str(result.exception)
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return result.exit_code, result.stdout


async def asked(*arguments: object) -> tuple[int, Any]:
    """The same beside a console that this loop runs, as JSON."""
    code, out = await asyncio.to_thread(diag, "--json", *arguments)
    return code, json.loads(out) if out.startswith(("{", "[")) else out


# --- the whole way --------------------------------------------------------------------------------


async def test_a_technician_is_issued_changes_is_on_record_is_revoked_and_refused(
    tmp_path: Path,
) -> None:
    code, made = await asked("key", "make", tmp_path / "ana.key")
    assert code == 0
    key = load_key_file(tmp_path / "ana.key", "key")
    async with running_gateway(tmp_path) as gateway, linked(gateway) as link:

        async def fetch() -> Any:
            return await link.fetch(ROSTER_PATH)

        desk = await make_desk(tmp_path, gateway_key=gateway.services.key)
        file, journal = tmp_path / "people.json", Journal(tmp_path / "journal.db")
        people = Technicians(file, gateway.public_key, TERMINAL, fetch, gateway.clock)
        terminal = desk.config.terminal.model_copy(update={"id": TERMINAL})
        config = desk.config.model_copy(update={"terminal": terminal})
        own = replace(desk, technicians=people, journal=journal, link=link, config=config)
        async with on_socket(own, tmp_path / "console.sock") as path:
            signed = ("--socket", path, "--key", tmp_path / "ana.key")
            code, answer = await asked(*signed, "queue", "retry")
            assert (code, "no technician's" in answer["text"]) == (2, True)
            issue(gateway, "ana", key)
            code, answer = await asked(*signed, "queue", "retry")
            assert (code, answer["command"]) == (0, "queue retry"), answer
            await tell_changes(link, journal)
            (change,) = kept(gateway)
            assert (change.technician, change.command, change.outcome) == (
                "ana",
                "queue retry",
                "done",
            )
            revoke(gateway)
            code, answer = await asked(*signed, "queue", "retry")
            assert (code, "was revoked" in answer["text"]) == (2, True)
            code, said = await asked("--socket", path, "queue", "retry")
            assert (code, "sign it with --key FILE" in said) == (2, True)
    assert made["publicKey"] == bytes(key.verify_key).hex()


def test_a_key_that_others_may_read_signs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "ana.key"
    create_key_file(file)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    code, said = diag("--socket", tmp_path / "none", "--key", file, "queue", "retry")
    assert code == 2
    assert "may be read by others: chmod 600" in said
    code, said = diag("key", "make", file)
    assert (code, "is there already" in said) == (2, True)


async def test_nothing_is_signed_for_another_terminal(tmp_path: Path) -> None:
    desk = await make_desk(tmp_path)
    async with on_socket(desk, tmp_path / "console.sock") as path:
        talk = Talk(Place(socket=path), print, SigningKey.generate(), "till-9")
        why = "of terminal 'term_test', not of 'till-9'"
        with contextlib.closing(talk), pytest.raises(OperatorError, match=why):
            await asyncio.to_thread(talk.ask, ["queue", "retry"])


# --- lines ----------------------------------------------------------------------------------------


async def test_a_pulled_cable_is_waited_for_and_a_look_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_port, "_FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(serial_port, "_LAST_RETRY_S", 0.05)
    answers, told = Answers(outbox_hangs=True), list[str]()
    lost = threading.Event()

    def tell(news: str) -> None:
        told.append(news)
        lost.set()

    with cable_in(tmp_path) as cable:
        commands = Commands(await make_desk(tmp_path, answers))
        running = asyncio.create_task(SerialConsole(str(cable.far), commands).run())
        talk = Talk(Place(port=str(cable.near)), tell)
        await asyncio.to_thread(_meet, talk)
        asking = asyncio.create_task(asyncio.to_thread(talk.ask, ["status"], WITHIN_S))
        async with asyncio.timeout(WITHIN_S):
            await answers.asked.wait()
        cable.pull()
        assert await asyncio.to_thread(lost.wait, WITHIN_S)
        answers.outbox_hangs = False
        cable.plug()
        answer = await asking
        assert answer["exitCode"] == 0
        assert "was lost: waiting for it" in told[0]
        assert told[1].endswith("is back: terminal term_test")
        talk.close()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def _meet(talk: Talk) -> None:
    """Until somebody listens: what arrives before the console opens its port is lost."""
    for _ in range(30):
        with contextlib.suppress(TapRailError):
            talk.meet(1.0)
            return
    raise AssertionError("nobody is there")


async def test_a_change_whose_answer_was_lost_is_not_given_twice(tmp_path: Path) -> None:
    key, given = SigningKey.generate(), list[bytes]()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A console that dies on every change."""
        decoder = Decoder()
        while data := await reader.read(4096):
            for item in decoder.feed(data):
                if isinstance(item, Frame) and item.body["command"] == "challenge":
                    said = {"terminalId": "term_test", "nonce": "00"}
                    writer.write(encode(Frame(item.id, {"exitCode": 0, "data": said})))
                elif isinstance(item, Frame):
                    given.append(data)
                    writer.close()
                    return

    server = await asyncio.start_unix_server(hang_up, tmp_path / "console.sock")
    talk = Talk(Place(socket=tmp_path / "console.sock"), print, key)
    with pytest.raises(LineLostError, match=r"may have been done or not.*ask: changes"):
        await asyncio.to_thread(talk.ask, ["key", "rotate"], WITHIN_S)
    assert len(given) == 1
    server.close()


async def test_a_line_that_stays_away_is_said_in_time(tmp_path: Path) -> None:
    path, told = tmp_path / "console.sock", list[str]()

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path.unlink()
        writer.close()

    server = await asyncio.start_unix_server(hang_up, path)
    talk = Talk(Place(socket=path), told.append)
    with pytest.raises(LineLostError, match="before the answer was complete: check the cable"):
        await asyncio.to_thread(talk.ask, ["status"], 3.0)
    assert told == [f"{path} was lost: waiting for it (Ctrl-C to give up)"]
    server.close()


def test_who_holds_a_port_or_why_it_cannot_be_had_is_said(tmp_path: Path) -> None:
    with cable_in(tmp_path) as cable:
        with cable.near.open() as port:
            holder = subprocess.Popen(["sleep", "60"], stdin=port)
        try:
            held = Place(port=str(cable.near)).holder()
            deadline_s = time.monotonic() + WITHIN_S
            while (held is None or held.name != "sleep") and time.monotonic() < deadline_s:
                held = Place(port=str(cable.near)).holder()  # until it has become sleep
            assert str(held) == f"PID {holder.pid} (sleep)"
        finally:
            holder.kill()
            holder.wait()
    code, said = diag("--socket", tmp_path / "none", "status")
    assert (code, "is the terminal on?" in said) == (2, True)
    code, said = diag("--socket", tmp_path / "none", "--port", "x", "status")
    assert (code, "name one of them" in said) == (2, True)


# --- files, windows -------------------------------------------------------------------------------


async def test_files_go_out_and_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    desk = await make_desk(tmp_path)
    async with on_socket(desk, tmp_path / "console.sock") as path:
        code, said = await asyncio.to_thread(diag, "--socket", path, "bundle", "b.tar.gz")
        assert (code, said.splitlines()[-1]) == (0, "stored in b.tar.gz")
        assert any(name.endswith("/status.json") for name in _packed(tmp_path / "b.tar.gz"))
        code, _ = await asyncio.to_thread(diag, "--socket", path, "config", "export", "t.toml")
        assert code == 0
        exported = await asyncio.to_thread((tmp_path / "t.toml").read_text)
        assert 'id = "term_test"' in exported
        code, said = await asyncio.to_thread(diag, "--socket", path, "config", "export", "t.toml")
        assert (code, "is there already" in said) == (2, True)
        code, said = await asyncio.to_thread(diag, "--socket", path, "config", "import", "no.toml")
        assert (code, "cannot be read" in said) == (2, True)


def _packed(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


async def test_a_window_draws_what_the_terminal_shows(tmp_path: Path) -> None:
    feedback = Feedback(Signals(None, None), None)
    desk = await make_desk(tmp_path)
    desk = replace(desk, probes=replace(desk.probes, feedback=feedback))
    before = (await Commands(desk).run("live")).data
    assert before["shown"] is None
    feedback.show(View(Phase.READY, 12_500_000, "TUSD", 6, card_present=False))
    result = await Commands(desk).run("live")
    assert len(json.dumps(result.data)) < 4096  # once a second over 11,520 bytes a second
    assert "12.50" in result.text
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(diag_live.drawn(result.data, 0, 120))
    drawn = console.export_text()
    assert "● ○ ○ ○ ○ ○   ready" in drawn
    assert sum("\u2801" <= sign <= "\u28ff" for sign in drawn) > 100
    wide = Console(record=True, width=200, file=io.StringIO())
    wide.print(diag_live.drawn(result.data, 0, 200))
    assert "█" in wide.export_text()
    for broken in ({"phase": "x", "shown": {"picture": {"widthPx": 1 << 30}}}, {}):
        console.print(diag_live.drawn(broken, 0, 80, "lost"))


def test_a_picture_of_one_pixel_is_one_dot() -> None:
    picture = bytes([0b0100_0000, 0, 0, 0])  # eight by four, the second of the first row
    assert diag_live.braille(picture, 8, 4) == ["\u2808\u2800\u2800\u2800"]
    assert diag_live.half_blocks(picture, 8, 4) == [" ▀      ", " " * 8]
    assert diag_live.lit([[1000, 500, 250]], 1300) == [True]
    assert diag_live.lit([[1000, 500, 250]], 1200) == [False]


async def test_a_person_works_at_the_prompt(tmp_path: Path) -> None:
    desk = await make_desk(tmp_path)
    async with on_socket(desk, tmp_path / "console.sock") as path:
        seen = await asyncio.to_thread(
            _typed, path, ["status", "sttus", "lights test", "key rotate", "bye"]
        )
    assert "\x1b[" in seen  # colour
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert "terminal term_test at" in seen
    assert "phase: ready" in seen
    assert "perhaps 'status' is meant" in seen
    assert "sign it with --key FILE" in seen
    assert "then check its wires" in seen


def _typed(path: Path, lines: list[str]) -> str:
    """What a person sees who types these lines, each when the prompt has come."""
    near, far = pty.openpty()
    child = subprocess.Popen(
        [str(TAPRAIL), "diag", "--socket", str(path)],
        stdin=far,
        stdout=far,
        stderr=far,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(far)
    seen, waiting = b"", list(lines)
    with contextlib.suppress(OSError):  # a pty whose far end is closed says EIO
        while data := os.read(near, 4096):
            seen += data
            if seen.count(b"term_test> ") > len(lines) - len(waiting) and waiting:
                os.write(near, waiting.pop(0).encode() + b"\n")
            elif seen.endswith(b"[y/n] "):
                os.write(near, b"n\n")
    os.close(near)
    assert child.wait(WITHIN_S) == 0
    return seen.decode()


def test_help_tells_all_that_there_is() -> None:
    code, said = diag("help")
    assert code == 0
    assert "config import FILE|-" in said
    assert "key make FILE" in said
    code, said = diag("--help")
    assert "taprail diag --key ana.key config set reader.port /dev/ttyUSB0\n" in said
    code, said = diag("status", "--port", "/dev/nothing", "--timeout", "0.01")
    assert code == 2
    assert completions("conf") == [
        "config diff",
        "config export",
        "config get",
        "config import",
        "config set",
    ]
