"""What the console's reading commands answer, on a terminal's real parts."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import secrets
import tarfile
from dataclasses import replace
from pathlib import Path

import structlog

from taprail_common.errors import LinkError
from taprail_terminal.console.commands import COMMANDS, Commands
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.log_tail import LogTail
from taprail_terminal.console.net_test import Target
from taprail_terminal.outbox import OutboxRow
from taprail_terminal.sale import Arm, CardSensed, CardTorn, ReaderBack
from tests.support.console_probes import URL_PASSWORD, Answers, make_desk

CARD_UID = "04deadbeef1122"
PICC_DATA = "ef963ff7828658a599f3041510671e88"


def row(number: int) -> OutboxRow:
    body = {"requestId": f"req_{number}", "card": {"uid": CARD_UID, "piccData": PICC_DATA}}
    return OutboxRow(
        f"req_{number}", 2_500_000, "USDC", json.dumps(body).encode(), "c2ln", 1_700_000_000_000
    )


async def sold(desk: Desk, count: int = 1) -> None:
    await desk.outbox.open(1_700_000_000_000)
    for number in range(count):
        await desk.outbox.store(row(number))


async def test_no_answer_log_or_bundle_holds_a_secret_of_the_run(tmp_path: Path) -> None:
    answers = Answers()
    answers.hello = LinkError(f"connecting failed, {URL_PASSWORD}"[:18])
    desk = await make_desk(tmp_path, answers)
    await sold(desk)
    hidden = [CARD_UID, PICC_DATA, URL_PASSWORD, desk.config.key_file.read_text().strip()]
    told = []
    with desk.log.attached():
        structlog.get_logger().info("a slip", text=hidden[-1], uid=CARD_UID)
        for name in COMMANDS:
            words = {"reader watch": "reader watch 1", "queue show": "queue show req_0"}
            result = await Commands(desk).run(words.get(name, name))
            told.append(json.dumps(result.to_json(name)))
            if name == "bundle":
                told += _contents(result.data["archive"])
        told += desk.log.last(500)
    everything = "\n".join(told)
    assert "req_0" in everything
    assert "a slip" in everything
    for secret in hidden:
        assert secret not in everything


def _contents(archive: str) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive))) as opened:
        files = [opened.extractfile(member) for member in opened.getmembers()]
        return [file.read().decode() for file in files if file is not None]


async def test_a_bundle_of_a_long_log_fits_into_an_answer(tmp_path: Path) -> None:
    desk = await make_desk(tmp_path)
    for _ in range(500):
        desk.log.note({"noise": secrets.token_urlsafe(600)})
    result = await Commands(desk).run("bundle")
    assert len(json.dumps(result.to_json("bundle"))) < 64 * 1024


async def test_the_queue_is_listed_shown_and_exported(tmp_path: Path) -> None:
    desk = await make_desk(tmp_path)
    await sold(desk, 2)
    commands = Commands(desk)
    listed = await commands.run("queue list")
    assert "req_1" in listed.text
    assert "2.50 USDC" in listed.text
    shown = await commands.run("queue show req_1")
    assert shown.data["signature"] == "c2ln"
    exported = await commands.run("queue export")
    assert [each["request"] for each in exported.data["requests"]] == ["req_0", "req_1"]
    assert (await commands.run("queue show req_9")).exit_code == 2


async def test_a_long_queue_is_exported_in_answers_that_fit(tmp_path: Path) -> None:
    desk = await make_desk(tmp_path)
    await sold(desk, 99)
    commands, found, following = Commands(desk), list[str](), "1"
    while following != "None":
        exported = await commands.run(f"queue export {following}")
        assert len(json.dumps(exported.to_json("queue export"))) < 64 * 1024
        found += [each["request"] for each in exported.data["requests"]]
        following = str(exported.data["next"])
    assert found == [f"req_{number}" for number in range(99)]
    assert (await commands.run("queue export 100")).exit_code == 2


async def test_a_long_log_is_told_from_its_end_in_an_answer_that_fits(tmp_path: Path) -> None:
    desk = await make_desk(tmp_path)
    for number in range(200):
        desk.log.note({"number": number, "noise": '"' * 400})
    told = await Commands(desk).run("log tail 200")
    assert len(json.dumps(told.to_json("log tail"))) < 64 * 1024
    assert '"number": 199' in told.data["lines"][-1]


async def test_what_is_heavy_lets_a_customer_pass_and_waits_for_no_second_one(
    tmp_path: Path,
) -> None:
    desk = await make_desk(tmp_path)
    desk.agent.apply(ReaderBack())
    desk.agent.apply(Arm(2_500_000))
    desk.agent.apply(CardSensed())
    commands = Commands(desk)
    asked = asyncio.create_task(commands.run("selftest"))
    assert (await commands.run("status")).exit_code == 0  # is not held up
    assert not asked.done()
    desk.agent.apply(CardTorn("too early"))
    assert (await asked).exit_code == 0


async def test_config_tells_what_the_next_start_would_change(tmp_path: Path) -> None:
    desk = await make_desk(tmp_path)
    commands = Commands(desk)
    assert (await commands.run("config get reader.port")).text == "reader.port: /dev/serial0"
    assert "perhaps reader.port is meant" in (await commands.run("config get reader.prt")).text
    assert (await commands.run("config diff")).data["differs"] == []
    file = tmp_path / "terminal.toml"
    file.write_text(file.read_text() + '\n[reader]\nport = "/dev/ttyUSB9"\n')
    assert (await commands.run("config diff")).data["differs"] == [
        {"key": "reader.port", "runs": "/dev/serial0", "file": "/dev/ttyUSB9"}
    ]


async def test_round_trips_are_told_as_percentiles(tmp_path: Path) -> None:
    desk = await make_desk(tmp_path)
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = Target("127.0.0.1", port, is_tls=False)
    desk = replace(desk, probes=replace(desk.probes, target=target))
    async with server:
        result = await Commands(desk).run("net test 5")
    assert result.exit_code == 0, result.text
    assert (result.data["rounds"], result.data["p99Ms"]) == (5, 3)


async def test_numbers_out_of_bounds_are_refused(tmp_path: Path) -> None:
    commands = Commands(await make_desk(tmp_path))
    for text in ("log tail 0", "log tail 9999999999999", "net test x", "reader watch 31"):
        assert (await commands.run(text)).exit_code == 2
    assert (await commands.run("log tail '")).text == "no closing quotation: type help"


def test_lines_are_bounded_in_number_and_length() -> None:
    tail = LogTail()
    for number in range(600):
        tail.note({"event": "x" * 5000, "number": number})
    assert len(tail.last(10_000)) == 500
    assert max(map(len, tail.last(500))) <= 1000
