"""What the console says is never taken for what somebody asks, and help says what each takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taprail_terminal.console.commands import COMMANDS, Commands
from taprail_terminal.console.conversation import answer
from taprail_terminal.console.frames import MAX_TYPED_BYTES, Decoder, Frame, Garbled, Line
from tests.support.console_probes import make_desk

ASKED_FOR = (
    "status",
    "selftest",
    "reader info",
    "reader scan",
    "reader reset",
    "reader watch",
    "led test",
    "display test",
    "buzzer test",
    "net test",
    "last",
    "log tail",
    "log level",
    "config get",
    "config set",
    "config diff",
    "config export",
    "config import",
    "key fingerprint",
    "key rotate",
    "queue list",
    "queue show",
    "queue retry",
    "queue export",
    "pair",
    "clock",
    "bundle",
    "mode",
    "reboot",
    "factory-reset",
)


def test_every_command_is_there_bounded_and_with_help() -> None:
    assert set(ASKED_FOR) <= set(COMMANDS)
    for command in COMMANDS.values():
        assert command.summary
        assert command.timeout_s <= 36


async def test_help_tells_of_all_or_of_those_that_begin_so(tmp_path: Path) -> None:
    commands = Commands(await make_desk(tmp_path))
    everything = await commands.run("help")
    assert set(everything.data["commands"]) == set(COMMANDS)
    some = await commands.run("help config")
    assert "config set KEY VALUE" in some.text
    assert "queue" not in some.text
    assert (await commands.run("help dance")).exit_code == 2


async def test_more_words_than_a_command_takes_are_refused(tmp_path: Path) -> None:
    commands = Commands(await make_desk(tmp_path))
    assert (await commands.run("status now")).text == "status: too many words: status"
    assert "config get [KEY]" in (await commands.run("config get a b")).text


async def test_nothing_that_comes_back_by_an_echo_is_carried_out(tmp_path: Path) -> None:
    """A line that echoes: each answer is a line again, until nothing more is said."""
    commands = Commands(await make_desk(tmp_path))
    said = await answer(commands, Line("help"))
    for _ in range(3):
        decoder = Decoder()
        items = [item for item in decoder.feed(said) if isinstance(item, Line)]
        said = b"".join([await answer(commands, item) for item in items])
        assert all(line.startswith(b"? ") for line in said.splitlines())
    assert said == b""


async def test_a_word_that_is_no_text_is_refused(tmp_path: Path) -> None:
    commands = Commands(await make_desk(tmp_path))
    frame = Frame("a", {"command": "queue show", "args": ["req_\ud800"]})
    (answered,) = Decoder().feed(await answer(commands, frame))
    assert isinstance(answered, Frame)
    assert answered.body["text"] == "a word of it is no text"
    frame = Frame("a", {"command": "\udfff"})
    assert b"no text" in await answer(commands, frame)


@pytest.mark.parametrize("size", [MAX_TYPED_BYTES, MAX_TYPED_BYTES + 1])
def test_a_typed_line_is_bounded(size: int) -> None:
    (item,) = Decoder().feed(b"x" * size + b"\n")
    assert isinstance(item, Line) is (size <= MAX_TYPED_BYTES)
    assert isinstance(item, Garbled) is (size > MAX_TYPED_BYTES)


async def test_a_pairing_code_is_written_down_nowhere(tmp_path: Path) -> None:
    desk = await make_desk(tmp_path)
    assert COMMANDS["pair"].has_secret
    refused = await Commands(desk).run("pair K7QF-4MX9-FT2W")
    assert "sign it" in refused.text
    assert "4MX9" not in json.dumps(refused.to_json("pair"))
