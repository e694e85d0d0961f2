"""The self-test: one row for each part, whatever the parts do to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taprail_common.errors import LinkError, OperatorError, PartError
from taprail_terminal.console import selftest
from taprail_terminal.console.commands import COMMANDS, Commands
from taprail_terminal.console.machine import look_at_power
from taprail_terminal.console.selftest import (
    CHECK_NAMES,
    Check,
    GatewayHello,
    LastTap,
    OutboxStats,
    Probes,
    run_selftest,
)
from tests.support.console_probes import HELLO, Answers, healthy_probes, make_desk


async def _checks(probes: Probes) -> dict[str, Check]:
    checks = await run_selftest(probes)
    assert tuple(check.name for check in checks) == CHECK_NAMES
    return {check.name: check for check in checks}


async def test_all_is_well(tmp_path: Path) -> None:
    checks = await _checks(healthy_probes(tmp_path))
    assert [check for check in checks.values() if not check.ok] == []
    assert all(check.what_to_do == "" for check in checks.values())
    assert "gw_1234" in checks["gateway"].detail


async def test_what_raises_is_a_row_with_what_to_do(tmp_path: Path) -> None:
    answers = Answers()
    answers.hello = LinkError("the gateway does not answer")
    answers.outbox = PartError("outbox", "disk is read-only")
    answers.fingerprint = OperatorError("device key /x is missing", fix="restore it")
    checks = await _checks(healthy_probes(tmp_path, answers))
    assert {name for name, check in checks.items() if not check.ok} == {
        "gateway",
        "clock",
        "queue",
        "key",
    }
    assert all(check.what_to_do for check in checks.values() if not check.ok)
    assert checks["key"].what_to_do == "restore it"
    assert checks["gateway"].detail == "the gateway does not answer"


async def test_a_bug_in_one_check_leaves_the_others(tmp_path: Path) -> None:
    answers = Answers()
    answers.outbox = ZeroDivisionError("a secret")
    checks = await _checks(healthy_probes(tmp_path, answers))
    assert checks["queue"].detail == "bug: ZeroDivisionError"
    assert checks["reader"].ok


async def test_a_part_that_never_answers_costs_only_its_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "_LOCAL_TIMEOUT_S", 0.2)
    answers = Answers()
    answers.outbox_hangs = True
    checks = await _checks(healthy_probes(tmp_path, answers))
    assert checks["queue"].detail == "no answer in 0.2 s"
    assert checks["reader"].ok
    assert checks["gateway"].ok


async def test_gateway_and_clock_share_one_question(tmp_path: Path) -> None:
    answers = Answers()
    await run_selftest(healthy_probes(tmp_path, answers))
    assert answers.hellos == 1


@pytest.mark.parametrize(
    ("offset_ms", "ok"), [(0, True), (-10_000, True), (10_001, False), (-3_600_000, False)]
)
async def test_a_wrong_clock_is_said(tmp_path: Path, offset_ms: int, ok: bool) -> None:
    answers = Answers()
    answers.hello = replace(HELLO, clock_offset_ms=offset_ms)
    check = (await _checks(healthy_probes(tmp_path, answers)))["clock"]
    assert check.ok is ok
    assert ("timedatectl" in check.what_to_do) is not ok


@pytest.mark.parametrize(
    ("stats", "ok"),
    [
        (OutboxStats(0, None), True),
        (OutboxStats(2, 30_000), True),
        (OutboxStats(1, 301_000), False),
    ],
)
async def test_sales_that_stay_unresolved_are_said(
    tmp_path: Path, stats: OutboxStats, ok: bool
) -> None:
    answers = Answers()
    answers.outbox = stats
    check = (await _checks(healthy_probes(tmp_path, answers)))["queue"]
    assert check.ok is ok
    assert str(stats.unresolved) in check.detail or not stats.unresolved


async def test_a_terminal_that_is_not_active_is_said(tmp_path: Path) -> None:
    answers = Answers()
    answers.hello = GatewayHello("gw_1", "revoked", "Kiosk", 0, 3)
    check = (await _checks(healthy_probes(tmp_path, answers)))["gateway"]
    assert not check.ok
    assert check.detail == "terminal is revoked"


async def test_a_state_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    probes = replace(healthy_probes(tmp_path), state_dir=tmp_path / "gone")
    check = (await _checks(probes))["disk"]
    assert not check.ok
    assert check.what_to_do == f"check {tmp_path}/gone and the SD card"


@pytest.mark.parametrize(
    ("flags", "detail"),
    [
        ("0x0", "voltage is fine"),
        ("0x50005", "under-voltage now"),
        ("50000", "under-voltage since the last start"),
        (None, "not measured on this machine"),
    ],
)
def test_a_weak_power_supply_is_said(tmp_path: Path, flags: str | None, detail: str) -> None:
    file = tmp_path / "get_throttled"
    if flags is not None:
        file.write_text(flags + "\n")
    assert look_at_power(file).detail == detail


WORDS = {"reader watch": "reader watch 1", "queue show": "queue show req_1"}
NOT_WELL = {"reader scan": 1, "queue show": 2, "net test": 1, "technicians": 1}
"""Here is no reader's port, no such request, and nobody listens where the gateway should be."""


async def test_every_command_answers_for_people_and_programs(tmp_path: Path) -> None:
    commands = Commands(await make_desk(tmp_path))
    for name, command in COMMANDS.items():
        result = await commands.run(WORDS.get(name, name))
        wanted = 2 if command.changes(()) else NOT_WELL.get(name, 0)
        assert result.exit_code == wanted, (name, result.text)
        assert result.text
        assert result.text.isascii()
        assert set(result.to_json(name)) == {"command", "exitCode", "data", "text"}


def _break_outbox(answers: Answers) -> None:
    answers.outbox = PartError("outbox", "disk is read-only", fix="replace the SD card")


def _bug_in_outbox(answers: Answers) -> None:
    answers.outbox = RuntimeError("a secret")


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (_break_outbox, "outbox: disk is read-only: replace the SD card"),
        (_bug_in_outbox, "status: failed inside the terminal: see its log"),
    ],
)
async def test_a_command_that_fails_still_answers(
    tmp_path: Path, prepare: Callable[[Answers], Any], text: str
) -> None:
    answers = Answers()
    prepare(answers)
    result = await Commands(await make_desk(tmp_path, answers)).run("status")
    assert (result.exit_code, result.text) == (2, text)


async def test_status_says_what_is_not_ok(tmp_path: Path) -> None:
    answers = Answers()
    answers.reader_ok = False
    result = await Commands(await make_desk(tmp_path, answers)).run("status")
    assert result.exit_code == 1
    assert "NOT OK reader" in result.text
    assert "-> check its wires" in result.text


async def test_an_unknown_command_is_refused_in_a_bounded_line(tmp_path: Path) -> None:
    result = await Commands(await make_desk(tmp_path)).run("x" * 10_000)
    assert result.exit_code == 2
    assert len(result.text) < 100


async def test_the_last_tap_is_told_in_one_line(tmp_path: Path) -> None:
    answers = Answers()
    answers.last = LastTap(0, "declined", "daily_limit", {"read": 41, "verdict": 12})
    result = await Commands(await make_desk(tmp_path, answers)).run(" LAST ")
    assert result.text == (
        "1970-01-01T00:00:00.000Z declined: daily_limit (read 41 ms, verdict 12 ms)"
        " -> `card limits --daily` sets what it may pay in a day"
    )
    assert result.data["tap"]["stagesMs"] == {"read": 41, "verdict": 12}


async def test_cancelling_a_self_test_leaves_nothing_running(tmp_path: Path) -> None:
    answers = Answers()
    answers.outbox_hangs = True
    running = asyncio.create_task(run_selftest(healthy_probes(tmp_path, answers)))
    await answers.asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}
