"""For whom a key is: amounts and PINs on a real table, and a PIN from its key to the outbox."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from taprail_common.pin_block import open_pin
from taprail_common.wire import SunProof
from taprail_terminal.keypad import Command, Key
from taprail_terminal.keypad_desk import GatewayPins, KeypadDesk
from taprail_terminal.outcome import CardProof
from taprail_terminal.readers.polling import Finished, Gone, Sensed
from taprail_terminal.sale import Arm, Phase, TimeUp
from tests.unit.terminal.test_agent_offers import Counter, counter

TAP = SunProof(picc_data="0" * 32, mac="0" * 16)
ABOVE = 5_000_000


def keys(text: str) -> list[Key]:
    names: dict[str, Key] = {"E": Command.ENTER, "<": Command.BACK, "X": Command.CANCEL}
    return [names.get(key, key) for key in text]


def desk(at: Counter, *, decimals: int | None = None) -> KeypadDesk:
    at.agent.ask_pins(GatewayPins(at.gateway.key.verify_key, lambda: ABOVE))
    return KeypadDesk(at.agent, decimals)


def press(pad: KeypadDesk, text: str) -> None:
    for key in keys(text):
        pad.press(key)


def tap(at: Counter) -> None:
    at.agent.on_report(Sensed(), 0.0)
    at.agent.on_report(Finished(CardProof(TAP)), 0.0)


async def test_an_amount_is_typed_taken_back_and_asked_for(tmp_path: Path) -> None:
    async with counter(tmp_path) as at:
        pad = desk(at, decimals=6)
        press(pad, "12.5")
        assert at.agent.state.view.typed == "12.5"
        press(pad, "X")
        assert (at.agent.state.phase, at.agent.state.view.typed) == (Phase.IDLE, "")
        press(pad, "0E")
        assert at.agent.state.phase is Phase.IDLE  # nought is no amount
        press(pad, "X3.5E9")
        assert (at.agent.state.phase, at.agent.state.next_units) == (Phase.READY, 3_500_000)
        press(pad, "X")
        assert at.agent.state.phase is Phase.IDLE


async def test_no_amount_is_typed_where_the_till_sets_it(tmp_path: Path) -> None:
    async with counter(tmp_path) as at:
        press(desk(at), "12.5E")
        assert (at.agent.state.phase, at.agent.state.view.typed) == (Phase.IDLE, "")


async def test_a_pin_goes_sealed_and_for_this_tap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with counter(tmp_path) as at:
        pad = desk(at)
        at.agent.apply(Arm(ABOVE + 1))
        tap(at)
        assert at.agent.state.phase is Phase.PIN
        press(pad, "12E")  # too short to be one
        assert at.agent.state.phase is Phase.PIN
        press(pad, "3<34E")
        row = await at.sold()
        body = json.loads(row.body)
        assert open_pin(at.gateway.key, row.request_id, TAP, body["pin"]) == "1234"
    assert "1234" not in caplog.text
    assert not [file for file in _files(tmp_path) if b"1234" in file.read_bytes()]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_up_to_the_gateways_amount_nobody_is_asked(tmp_path: Path) -> None:
    async with counter(tmp_path) as at:
        desk(at)
        at.agent.apply(Arm(ABOVE))
        tap(at)
        assert "pin" not in json.loads((await at.sold()).body)


async def test_who_has_no_pin_sends_none(tmp_path: Path) -> None:
    async with counter(tmp_path) as at:
        pad = desk(at)
        at.agent.apply(Arm(ABOVE + 1))
        tap(at)
        press(pad, "E")
        assert "pin" not in json.loads((await at.sold()).body)


async def test_a_pin_that_was_left_is_not_the_next_ones_beginning(tmp_path: Path) -> None:
    async with counter(tmp_path) as at:
        pad = desk(at)
        at.agent.apply(Arm(ABOVE + 1))
        tap(at)
        press(pad, "99X")
        assert at.agent.state.phase is Phase.TRY_AGAIN
        assert await at.outbox.unfinished() == []
        at.agent.on_report(Gone(), 0.0)
        tap(at)
        press(pad, "12")
        at.agent.leave_pin()  # as the clock does, without a key
        at.agent.on_report(Gone(), 0.0)
        tap(at)
        press(pad, "4711E")
        row = await at.sold()
        sealed = json.loads(row.body)["pin"]
        assert open_pin(at.gateway.key, row.request_id, TAP, sealed) == "4711"
        at.agent.report(TimeUp())  # too early: says nothing
