"""`taprail admin card personalize` over a simulated reader, and what the gateway makes of the card.

The command, the relay as a process of its own, nfcpy and the chip on a pseudo-terminal: only the
card and the reader chip are simulated.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from taprail_common.errors import InputError, TapRailError
from taprail_common.wire import PlainSunProof, SunProof, TerminalPayment
from taprail_gateway import issuer
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import actions, schema
from taprail_gateway.proofs import ProofReader
from taprail_hwsim.cards import Card, Ntag21x, Ntag424Chip
from taprail_hwsim.pn532 import Pn532Simulator
from taprail_terminal.readers.base import CardSilentError, Driver, FoundCard
from taprail_terminal.relay import MAX_LINE_BYTES, relay
from tests.support.admin_fixtures import Admin

UID = bytes.fromhex("04A1B2C3D4E5F6")
URL = "https://tap.example/t"


@pytest.fixture
def simulator() -> Iterator[Pn532Simulator]:
    with Pn532Simulator() as simulator:
        yield simulator


def command(simulator: Pn532Simulator, *options: str) -> tuple[str, ...]:
    return ("card", "personalize", "--reader", f"tty:{simulator.path}", "--url", URL, *options)


def written(admin: Admin, simulator: Pn532Simulator, *options: str) -> dict[str, Any]:
    done: dict[str, Any] = admin.json(*command(simulator, *options))
    return done


def proof_of(card: Ntag424Chip) -> SunProof | PlainSunProof:
    """A tap, as a terminal would send it."""
    card.advance()
    file = card.file_at(card.counter)
    url = file[7 : 6 + file[4]].decode()
    fields = dict(each.split("=") for each in url.partition("?")[2].split("&"))
    if "picc" in fields:
        return SunProof(picc_data=fields["picc"], mac=fields["mac"])
    return PlainSunProof(uid=fields["uid"], read_counter=fields["ctr"], mac=fields["mac"])


def assert_known(admin: Admin, card: Ntag424Chip, card_uuid: str) -> None:
    """The gateway's own reading of a tap names this very card, and its counter is fresh."""
    custody = admin_custody(admin)
    keys = admin.do(lambda connection: issuer.load(connection, custody))
    reader = ProofReader(keys, custody.uid_digest, bytes(32))
    evidence = reader.evidence(_payment(proof_of(card)))
    assert evidence.problem is None
    c = schema.cards.c
    statement = select(c.uuid, c.sun_counter, c.key_version).where(
        c.uid_digest == evidence.uid_digest
    )
    [(uuid, counter, version)] = admin.do(lambda connection: connection.execute(statement).all())
    assert (uuid, version) == (card_uuid, evidence.key_version)
    assert evidence.counter is not None
    assert evidence.counter > counter


def _payment(proof: SunProof | PlainSunProof) -> TerminalPayment:
    now = datetime.now(UTC)
    return TerminalPayment(
        request_id="req-1",
        terminal_id="counter-1",
        merchant_id="kiosk",
        amount=100,
        currency="TUSD",
        tapped_at=now,
        accept_until=now + timedelta(seconds=15),
        proof=proof,
    )


def admin_custody(admin: Admin) -> Custody:
    custody = Custody.load(admin.settings.master_key_file)
    admin.do(custody.attach)
    return custody


@pytest.mark.parametrize("mirror", ["encrypted", "plain"])
def test_a_card_is_issued_and_written_in_one_go(
    admin: Admin, simulator: Pn532Simulator, mirror: str
) -> None:
    card = Ntag424Chip(UID)
    simulator.put(card)
    done = written(admin, simulator, "--user", "alice", "--mirror", mirror, "--name", "Blue")
    assert (done["counter"], done["commands"]) == (1, 34)
    assert_known(admin, card, done["cardUuid"])
    shown = admin.json("card", "show", done["cardUuid"])
    assert (shown["name"], shown["profile"], shown["sun_counter"]) == ("Blue", "sun", 1)
    told = [each.action for each in admin.do(lambda c: actions.history(c, 9))]
    assert told == ["card-personalize", "card-issue"]
    assert UID not in admin.settings.database_file.read_bytes()
    assert UID.hex() not in json.dumps(done).lower()


def test_a_card_that_leaves_and_comes_back_is_finished(
    admin: Admin, tmp_path: Path, simulator: Pn532Simulator
) -> None:
    card = Ntag424Chip(UID)
    hits: list[int] = []

    def put_back(name: str, _at_s: float, details: dict[str, Any]) -> None:
        if name == "card_lifted" and details["torn"]:
            hits.append(len(hits))
            simulator.put(card, tear_after_apdus=(11, 24, None)[len(hits) - 1])

    simulator.on_event = put_back
    simulator.put(card, tear_after_apdus=7)
    done = written(admin, simulator, "--user", "alice")
    assert len(hits) == 3
    assert_known(admin, card, done["cardUuid"])


def test_a_written_card_is_written_again_as_long_as_it_has_not_paid(
    admin: Admin, simulator: Pn532Simulator
) -> None:
    card = Ntag424Chip(UID)
    simulator.put(card)
    first = written(admin, simulator, "--user", "alice")["cardUuid"]
    for mirror in ("plain", "plain", "encrypted"):
        again = written(admin, simulator, "--mirror", mirror)
        assert again["cardUuid"] == first
        assert_known(admin, card, first)
    row = {
        **dict.fromkeys(("minute_taps_before", "hour_taps_before", "hour_declines"), 0),
        **dict.fromkeys(("hour_declines_before", "payments", "usual_units", "spread_units"), 0),
        "kind": "card",
        "id": first,
        "minute": 1,
        "minute_taps": 1,
        "hour": 1,
        "hour_taps": 1,
    }
    admin.do(lambda connection: connection.execute(schema.activity.insert().values(row)))
    written(admin, simulator)  # the same layout: nothing begins anew
    assert_known(admin, card, first)
    with pytest.raises(TapRailError, match="has paid already and is laid out in another way"):
        admin(*command(simulator, "--mirror", "plain"))
    assert_known(admin, card, first)


def test_of_two_cards_none_is_written(admin: Admin, simulator: Pn532Simulator) -> None:
    first, second = Ntag424Chip(UID), Ntag424Chip(UID[:-1] + b"\x01")
    simulator.put(first)
    simulator.put_beside(second)
    with pytest.raises(TapRailError, match="two cards lie on the reader: take one"):
        admin(*command(simulator, "--user", "alice"))
    assert first.file_at(1) == second.file_at(1) == bytes(256)
    assert admin.json("card", "list") == []


def test_what_cannot_be_written_is_said_plainly(admin: Admin, simulator: Pn532Simulator) -> None:
    cases: list[tuple[Card | None, str]] = [
        (None, "no card came for 1 s"),
        (Ntag21x(UID), "is no NTAG 424 DNA"),
        (Ntag424Chip(UID), "this card is not issued: name its --user"),
    ]
    for card, message in cases:
        if card is not None:
            simulator.put(card)
        with pytest.raises(TapRailError, match=message):
            admin(*command(simulator, "--wait", "1"))
        simulator.lift()
    simulator.put(Ntag424Chip(UID))
    weak = admin.json(
        *("card", "issue", "--user", "alice", "--profile", "uid", "--uid", UID.hex())
    )["cardUuid"]
    with pytest.raises(TapRailError, match="has no keys to write"):
        admin(*command(simulator))
    admin("card", "replace", weak, "--uid", "04" * 7, "--profile", "sun")
    with pytest.raises(TapRailError, match=r"has no keys|was replaced"):
        admin(*command(simulator))


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        ("usb", "names no reader: write tty:"),
        ("exec:echo '", "names no reader"),
        ("usb:1", "its program has ended"),
        ("tty:", "names no reader"),
        ("exec: ", "names no reader"),
        ("exec:/does/not/exist", "cannot be started"),
        ("exec:true", "its program has ended"),
        ("exec:echo nonsense", "words that are not known"),
        ("exec:head -c 9000 /dev/zero", "words that are not known"),
        ('exec:echo \'{"error": "part", "message": "reader: is burnt"}\'', "is burnt"),
    ],
)
def test_a_reader_that_is_none_is_named(admin: Admin, reader: str, message: str) -> None:
    with pytest.raises(TapRailError, match=message):
        admin("card", "personalize", "--reader", reader, "--url", URL)


def test_the_reader_may_be_reached_through_any_command(
    admin: Admin, simulator: Pn532Simulator
) -> None:
    card = Ntag424Chip(UID)
    simulator.put(card)
    program = [sys.executable, "-c", "from taprail_common.cli import main; main()"]
    reader = shlex.join([*program, "terminal", "relay", "--port", simulator.path])
    done = admin.json(
        *("card", "personalize", "--reader", f"exec:{reader}", "--url", URL, "--user", "alice")
    )
    assert_known(admin, card, done["cardUuid"])


# --- the relay by itself --------------------------------------------------------------------------


class _Bench(Driver):
    """A reader with one card that repeats what it is told, and then falls silent."""

    def __init__(self, answers: int = 1) -> None:
        self.calls: list[str] = []
        self._answers = answers

    def check(self) -> None: ...

    def open(self) -> str:
        self.calls.append("open")
        return "bench"

    def close(self) -> None:
        self.calls.append("close")

    def ping(self) -> None: ...

    def wait_for_card(self) -> FoundCard | None:
        return FoundCard(UID, iso_dep=True)

    def look_again(self) -> FoundCard | None:
        raise NotImplementedError

    def start_session(self, *, budget_s: float) -> None:
        self.calls.append("session")

    def exchange(self, apdu: bytes) -> bytes:
        self._answers -= 1
        if self._answers < 0:
            raise CardSilentError("the card does not answer")
        return apdu

    def still_answers(self) -> bool:
        raise NotImplementedError

    def rest(self) -> None:
        self.calls.append("rest")


def relayed(*lines: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    bench, said = _Bench(), list[dict[str, Any]]()
    relay(bench, lines, said.append)
    return said, bench.calls


def test_a_dialogue_is_one_answer_for_each_line() -> None:
    said, calls = relayed(
        b'{"do": "card", "wait_s": 1}',
        b'{"do": "apdu", "apdu": "00a40400"}',
        b'{"do": "apdu", "apdu": "00a40400"}',
    )
    assert said[:3] == [
        {"reader": "bench"},
        {"uid": UID.hex(), "iso_dep": True},
        {"apdu": "00a40400"},
    ]
    assert said[3]["error"] == "card_silent"
    assert calls == ["open", "rest", "session", "close"]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"do": "card"}',
        b'{"do": "card", "wait_s": 0}',
        b'{"do": "card", "wait_s": 601}',
        b'{"do": "card", "wait_s": "1"}',
        b'{"do": "apdu", "apdu": "00"}',
        b'{"do": "apdu", "apdu": "zz"}',
        b'{"do": "apdu", "apdu": "%s"}' % (b"00" * 262),
        b'{"do": "apdu", "apdu": 1}',
        b" " * (MAX_LINE_BYTES + 1),
    ],
)
def test_a_line_that_is_no_request_is_answered_so(line: bytes) -> None:
    said, _calls = relayed(line)
    assert [each.get("error") for each in said] == [None, InputError.code]
