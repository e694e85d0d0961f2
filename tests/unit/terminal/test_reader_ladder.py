"""The remedies for a reader in trouble, as a table; and the edges that carry the hard one out."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from gpiozero.pins.mock import MockFactory

from taprail_common.errors import PartError
from taprail_terminal.readers.ladder import (
    REOPEN_AFTER_S,
    TABLE,
    WITHIN_A_RUN,
    Rung,
    Sign,
    next_rung,
    pause_s,
)
from taprail_terminal.readers.resets import pin_reset, reset_for, usb_reset


def test_every_rung_knows_every_sign() -> None:
    assert {(rung, sign) for rung, row in TABLE.items() for sign in row} == set(product(Rung, Sign))


def climbed(sign: Sign, steps: int) -> list[Rung]:
    rung, seen = Rung.NONE, []
    for _ in range(steps):
        rung = next_rung(rung, sign)
        seen.append(rung)
    return seen


def test_failures_climb_from_the_mildest_remedy_and_then_take_turns() -> None:
    soft, field, again, hard = Rung.SOFT_RESET, Rung.RF_CYCLE, Rung.REOPEN, Rung.HARD_RESET
    assert climbed(Sign.FAILED, 6) == [soft, field, again, hard, again, hard]


def test_only_hangs_ask_for_a_new_process() -> None:
    assert climbed(Sign.HUNG, 4)[-2:] == [Rung.NEW_PROCESS, Rung.NEW_PROCESS]
    asking = {sign for row in TABLE.values() for sign, to in row.items() if to is Rung.NEW_PROCESS}
    assert asking - {Sign.ANSWERS} == {Sign.HUNG}


@pytest.mark.parametrize("rung", Rung)
def test_what_is_not_there_is_waited_for_and_what_is_steady_is_well(rung: Rung) -> None:
    assert next_rung(rung, Sign.ABSENT) is Rung.REOPEN
    assert next_rung(rung, Sign.STEADY) is Rung.NONE
    assert (next_rung(rung, Sign.ANSWERS) is Rung.NONE) == (rung in {Rung.NONE, *WITHIN_A_RUN})


def test_pauses_grow_and_stay_short_enough_to_heal_in_fifteen_seconds() -> None:
    assert [pause_s(tries) for tries in range(9)] == [*REOPEN_AFTER_S, *[REOPEN_AFTER_S[-1]] * 4]


def test_a_serial_port_without_usb_cannot_be_reset(tmp_path: Path) -> None:
    (tmp_path / "class/tty/ttyS0/device").mkdir(parents=True)
    with pytest.raises(PartError, match="USB"):
        usb_reset("/dev/ttyS0", tmp_path)
    assert reset_for("ACS ACR122U") is None


def test_the_device_behind_a_usb_port_is_the_one_that_is_reset(tmp_path: Path) -> None:
    device = tmp_path / "devices/1-1"
    (device / "1-1:1.0/ttyUSB7").mkdir(parents=True)
    (device / "busnum").write_text("1\n")
    (device / "devnum").write_text("12\n")
    (tmp_path / "class/tty/ttyUSB7").mkdir(parents=True)
    (tmp_path / "class/tty/ttyUSB7/device").symlink_to(device / "1-1:1.0/ttyUSB7")
    (tmp_path / "bus/usb/001").mkdir(parents=True)
    (tmp_path / "bus/usb/001/012").touch()
    with pytest.raises(PartError, match="Inappropriate ioctl"):  # the right file, and no device
        usb_reset("/dev/ttyUSB7", tmp_path, tmp_path)


def test_the_reset_pin_goes_low_and_up_again() -> None:
    factory = MockFactory()
    pin_reset(4, factory)
    assert [state.state for state in factory.pin(4).states][-1] is False
