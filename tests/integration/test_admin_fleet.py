"""`taprail admin terminal list|show|diagnose|config|pair` and `tls make`, on a real ledger."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from stat import S_IMODE
from typing import Any

import pytest
from nacl.signing import SigningKey
from typer.testing import CliRunner

from taprail_common.errors import InputError, OperatorError
from taprail_common.fleet_wire import DiagnosisCheck, DiagnosisReport
from taprail_common.pairing import Code
from taprail_common.signing import fingerprint, load_key_file, public_key_text
from taprail_common.terminal_settings import ConfigReport
from taprail_common.wire import from_ms
from taprail_gateway import diagnosis, pairing
from taprail_gateway.admin import app
from taprail_gateway.heartbeats import SILENT_AFTER_MS, Beat
from taprail_gateway.ledger import actions, fleet, schema_fleet, schema_pairing
from taprail_gateway.tls import pin_of
from tests.support.admin_fixtures import Admin, admin

__all__ = ["admin"]

KEY = public_key_text(SigningKey(bytes(32)).verify_key)
OWN = fingerprint(SigningKey(bytes(32)).verify_key)


@pytest.fixture
def shop(admin: Admin) -> Admin:
    admin("terminal", "add", "t1", "--merchant", "kiosk", "--public-key", KEY)
    return admin


def now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def beat(at_ms: int, **changes: Any) -> Beat:
    given = {"reader_ok": True, "reader": "PN532 1.6", **changes}
    return Beat("t1", at_ms, "0.1.0", "idle", unresolved=1, unsettled=2, uptime_s=7_300,
                clock_offset_ms=-12, config_version=0, **given)  # fmt: skip


def test_terminals_are_listed_with_how_they_are(shop: Admin) -> None:
    [never] = shop.json("terminal", "list")
    assert (never["id"], never["fingerprint"]) == ("t1", OWN)
    assert (never["health"]["lastHeardAt"], never["health"]["isSilent"]) == (None, True)
    assert "never" in shop("terminal", "list")
    shop.do(partial(fleet.write_beats, beats=[beat(now_ms())]))
    [heard] = shop.json("terminal", "list")
    assert (heard["health"]["isSilent"], heard["health"]["unconfirmed"]) == (False, 3)
    shown = shop("terminal", "show", "t1")
    for words in ("PN532 1.6", "0.1.0", "2 h", "+12 ms", "its own"):
        assert words in shown
    silent = beat(now_ms() + 1, reader_ok=False, reader="hangs")
    shop.do(partial(fleet.write_beats, beats=[silent]))
    assert "NOT OK: hangs" in shop("terminal", "show", "t1")
    old = beat(now_ms() - SILENT_AFTER_MS - 60_000)
    shop.do(lambda db: db.execute(schema_fleet.terminal_beats.delete()))
    shop.do(partial(fleet.write_beats, beats=[old]))
    assert "SILENT, 2 min ago" in shop("terminal", "list")
    with pytest.raises(OperatorError, match="no terminal 't9'"):
        shop("terminal", "show", "t9")


def report(version: int, outcome: str | None, reason: str | None, **settings: Any) -> ConfigReport:
    return ConfigReport.model_validate(
        {
            "terminal_id": "t1",
            "at": from_ms(now_ms()),
            "version": version,
            "outcome": outcome,
            "reason": reason,
            "applied_version": version if outcome == "applied" else version - 1,
            "settings": {name.replace("__", "."): value for name, value in settings.items()},
        },
        strict=False,
    )


def test_settings_are_wanted_compared_and_seen_applied(shop: Admin) -> None:
    shop("terminal", "add", "t2", "--merchant", "kiosk", "--public-key", KEY)
    config = partial(shop.json, "terminal", "config")
    done = config("set", "t1", "reader.port=/dev/ttyUSB1", "log.json_lines=false")
    assert done == {"wanted": [{"id": "t1", "version": 1}]}
    for_all = config("set", "all", "display.language=vi", "--reason", "Tet")
    assert for_all["wanted"] == [{"id": "t1", "version": 2}, {"id": "t2", "version": 1}]
    shop("terminal", "config", "unset", "t1", "reader.reset_pin")
    told = config("get", "t1")
    assert told["wanted"] == {
        "reader.port": "/dev/ttyUSB1",
        "log.json_lines": False,
        "display.language": "vi",
        "reader.reset_pin": None,
    }
    assert (told["state"], told["wantedVersion"], told["runs"]) == ("waiting", 3, {})
    assert "version 3 is wanted, it has 0" in shop("terminal", "list")
    runs = {"reader__port": "/dev/ttyUSB1", "log__json_lines": True, "display__language": "vi"}
    said = report(3, "applied", None, **runs)
    shop.do(partial(fleet.report, said=said, now_ms=now_ms()))
    assert config("diff", "t1") == [{"key": "log.json_lines", "wanted": False, "runs": True}]
    assert "version 3" in shop("terminal", "show", "t1")
    refused = report(3, "refused", "no such port", **runs)
    shop.do(partial(fleet.report, said=refused, now_ms=now_ms()))
    assert "REFUSED: no such port" in shop("terminal", "show", "t1")
    noted = shop.do(lambda db: actions.history(db, 9))
    assert {each.reason for each in noted if each.action == "want-config"} == {None, "Tet"}


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("reader.prot=/dev/x", "perhaps reader.port is meant"),
        ("terminal.id=t9", "cannot be changed from here"),
        ("terminal.gateway_public_key=00", "cannot be changed from here"),
        ("reader.port", "must be like"),
        ("reader.port=" + "x" * 201, "at most 200 characters"),
        ("lights.pins=[1.5]", "a whole number"),
        ("console.port='a\\tb\x07'", "cannot be printed"),
    ],
)
def test_what_no_terminal_could_take_is_refused_at_once(shop: Admin, pair: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        shop("terminal", "config", "set", "t1", pair)
    assert shop.json("terminal", "config", "get", "t1")["wantedVersion"] is None


def test_a_diagnosis_is_asked_through_the_ledger(
    shop: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "FOUND_WITHIN_MS", 0)
    with pytest.raises(OperatorError, match="not connected to any gateway"):
        shop("terminal", "diagnose", "t1")
    monkeypatch.undo()
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(
            CliRunner().invoke,
            app,
            ["--config", str(shop.config), "terminal", "diagnose", "t1", "--json"],
        )
        found: list[fleet.Diagnosis] = []
        while not found and not asking.done():  # as a gateway looks for it
            found = shop.do(_taken)
        [asked] = found
        check = DiagnosisCheck(name="reader", ok=False, detail="silent", what_to_do="wires", ms=7)
        told = DiagnosisReport(
            terminal_id="t1",
            diagnosis_id=asked.id,
            at=from_ms(now_ms()),
            version="0.1.0",
            checks=(check,),
        ).model_dump_json(by_alias=True)
        said = partial(fleet.answer, terminal_id="t1", diagnosis_id=asked.id, signature="c2ln")
        assert shop.do(partial(said, body=told, now_ms=now_ms()))
        done = asking.result(20)
    assert done.exit_code == 1  # something is wrong there
    assert json.loads(done.stdout)["checks"][0]["whatToDo"] == "wires"
    assert "NOT OK: reader" in shop("terminal", "show", "t1")


def _taken(connection: Any) -> list[fleet.Diagnosis]:
    """What a gateway does that has the terminal's socket."""
    found = fleet.untold(connection, ["t1"], now_ms())
    for each in found:
        fleet.told(connection, each, now_ms())
    return found


def test_a_pairing_code_is_shown_once_and_its_use_is_waited_for(shop: Admin) -> None:
    made = shop.json("terminal", "pair", "t3", "--merchant", "kiosk", "--minutes", "2")
    code = Code.parse(made["code"])
    key = load_key_file(shop.settings.key_file, "key").verify_key
    assert (made["id"], made["gatewayFingerprint"]) == ("t3", fingerprint(key))
    stored = b"".join(file.read_bytes() for file in shop.config.parent.glob("ledger.db*"))
    assert code.secret.encode() not in stored
    shop("merchant", "add", "other", "--account", "0x" + "12" * 20)
    with pytest.raises(OperatorError, match="is of merchant 'kiosk'"):
        shop("terminal", "pair", "t1", "--merchant", "other")
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(shop.json, "terminal", "pair", "t1", "--wait")
        bound = False
        while not bound and not waiting.done():
            bound = shop.do(_type_code)
        answer = waiting.result(20)
    assert answer["fingerprint"] == OWN


def _type_code(connection: Any) -> bool:
    """What the gateway does when a device has shown that it knows the code of t1."""
    pairings = schema_pairing.pairings
    mine = pairings.select().where(pairings.c.terminal_id == "t1")
    row = connection.execute(mine).one_or_none()
    code = None if row is None else pairing.spend(connection, row.name, now_ms())
    return code is not None and pairing.bind(connection, code, KEY, now_ms())


def test_a_certificate_is_made_once_and_its_key_is_nobody_elses(
    shop: Admin, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    made = shop.json("tls", "make", str(certificate), str(key), "--host", "kasse.example")
    assert made["pin"] == pin_of(certificate)
    assert S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    with pytest.raises(OperatorError, match="exists already"):
        shop("tls", "make", str(certificate), str(key))
    assert key.read_bytes() == before
    other = shop.json("tls", "make", str(tmp_path / "b.pem"), str(tmp_path / "b.key"))
    assert other["pin"] != made["pin"]
