"""Technicians at the gateway: whose keys count, what terminals are told of them, and tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from sqlalchemy import Connection

from taprail_common.api.gateway import Hello
from taprail_common.errors import InputError, LinkError, OperatorError
from taprail_common.ids import new_id
from taprail_common.signing import Domain, public_key_text, sign, verify
from taprail_common.technicians import (
    ABOUT_ROSTER,
    CHANGES_PATH,
    MAX_TECHNICIANS,
    ROSTER_PATH,
    Change,
    Changes,
    Roster,
    revision,
)
from taprail_common.wire import MAX_BODY_BYTES, SIGNATURE_HEADER, TERMINAL_HEADER, parse
from taprail_gateway import registry, technicians
from taprail_gateway.ledger import alerts
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.schema_technicians import terminal_changes
from taprail_gateway.technicians import MAX_DAILY_CHANGES, Reported, TooManyChangesError
from taprail_terminal.console.commands import Commands
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.journal import Journal
from taprail_terminal.console.proof import prove
from taprail_terminal.console.sync import tell_changes
from taprail_terminal.console.technicians import Technicians
from taprail_terminal.gateway_link import Expected, GatewayLink
from taprail_terminal.identity import Identity
from tests.support.admin_fixtures import Admin
from tests.support.console_probes import make_desk
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TestGateway, running_gateway
from tests.support.ledger_fixtures import on_both_engines
from tests.support.office_desk import notes

BY = By("cli:olga", 1_800_000_000_000)
ANA = SigningKey.generate()
JOURNAL = "jnl_00"


@pytest.fixture
async def gateway(tmp_path: Path, ledger_url: str) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path, ledger_url=ledger_url) as running:
        yield running


def public(key: SigningKey) -> str:
    return public_key_text(key.verify_key)


def issue(gateway: TestGateway, name: str = "ana", key: SigningKey = ANA) -> None:
    by = By("cli:olga", gateway.now_ms())
    gateway.ledger.write_now(lambda db: technicians.issue(db, name, public(key), by))


def revoke(gateway: TestGateway, name: str = "ana") -> None:
    by = By("cli:olga", gateway.now_ms())
    gateway.ledger.write_now(lambda db: technicians.revoke(db, name, by))


def change(seq: int, at: int, **other: Any) -> Change:
    told = {"technician": "ana", "command": "queue retry", "outcome": "done", **other}
    return Change(seq=seq, at=at, **told)


def told(*changes: Change, journal: str = JOURNAL) -> Changes:
    return Changes(journal=journal, changes=changes)


def kept(gateway: TestGateway) -> list[Reported]:
    return gateway.ledger.read_now(lambda db: technicians.reported(db, 100))[::-1]


def alerted(gateway: TestGateway) -> list[str]:
    return [each.text for each in gateway.ledger.read_now(alerts.open_alerts)]


@asynccontextmanager
async def linked(gateway: TestGateway) -> AsyncIterator[GatewayLink]:
    expected = Expected(gateway.url, gateway.public_key, MERCHANT, "TUSD", 6)
    link = GatewayLink(expected, Identity(TERMINAL, gateway.terminal_key), gateway.clock)
    await link.open()
    yield link
    await link.close()


async def roster(link: GatewayLink, gateway: TestGateway) -> Roster:
    evidence = await link.fetch(ROSTER_PATH)
    key, about = gateway.public_key, ABOUT_ROSTER
    verify(key, Domain.COMMAND, evidence.body, evidence.signature, about=about)
    return parse(Roster, evidence.body)


# --- the whole way --------------------------------------------------------------------------------


class Bench:
    """A terminal's console whose technicians and journal are this gateway's."""

    def __init__(self, desk: Desk, gateway: TestGateway, link: GatewayLink, folder: Path) -> None:
        async def fetch() -> Any:
            if self.is_offline:
                raise LinkError("no gateway")
            return await link.fetch(ROSTER_PATH)

        self.is_offline = False
        people = Technicians(
            folder / "people.json", gateway.public_key, TERMINAL, fetch, gateway.clock
        )
        self.journal = Journal(folder / "journal.db")
        self.people = people
        ours: dict[str, Any] = {"technicians": people, "journal": self.journal, "link": link}
        self.commands = Commands(replace(desk, clock=gateway.clock, **ours))

    async def give(self, *words: str, key: SigningKey = ANA) -> str:
        nonce = (await self.commands.run("challenge")).data["nonce"]
        proof = prove(key, TERMINAL, nonce, words)
        return (await self.commands.carry_out(words, proof)).text


async def test_issued_then_let_in_then_on_record_then_revoked_then_refused(
    gateway: TestGateway, tmp_path: Path
) -> None:
    async with linked(gateway) as link:
        bench = Bench(await make_desk(tmp_path), gateway, link, tmp_path)
        assert "no technician's" in await bench.give("queue", "retry")
        issue(gateway)
        assert "posted again" in await bench.give("queue", "retry")
        await tell_changes(link, bench.journal)
        assert await bench.journal.untold() is None
        (made,) = kept(gateway)
        assert (made.technician, made.command, made.outcome) == ("ana", "queue retry", "done")
        revoke(gateway)
        assert "revoked" in await bench.give("queue", "retry")
        assert notes(gateway) == [
            ("cli:olga", "issue-technician", "ana"),
            (f"terminal:{TERMINAL}", "report-change", TERMINAL),
            ("cli:olga", "revoke-technician", "ana"),
        ]
        assert alerted(gateway) == []


async def test_a_greeting_tells_that_there_is_another_list(
    gateway: TestGateway, tmp_path: Path
) -> None:
    async with linked(gateway) as link:
        bench = Bench(await make_desk(tmp_path), gateway, link, tmp_path)
        issue(gateway)
        assert await bench.people.refresh()
        assert await bench.people.has((await link.greet()).hello.technicians_revision)
        revoke(gateway)
        hello: Hello = (await link.greet()).hello
        assert not await bench.people.has(hello.technicians_revision)
        assert hello.technicians_revision == revision(())


async def test_without_the_gateway_the_last_list_holds(
    gateway: TestGateway, tmp_path: Path
) -> None:
    issue(gateway)
    async with linked(gateway) as link:
        bench = Bench(await make_desk(tmp_path), gateway, link, tmp_path)
        assert "posted again" in await bench.give("queue", "retry")
        bench.is_offline = True
        assert "posted again" in await bench.give("queue", "retry")
        revoke(gateway)  # it cannot know yet
        gateway.clock.ahead_ms += 3_600_000
        assert "posted again" in await bench.give("queue", "retry")
        await tell_changes(link, bench.journal)
    assert len(kept(gateway)) == 3
    (text,) = alerted(gateway)  # of the one that was made after the end
    assert "by ana, who was no technician then: queue retry" in text


async def test_long_changes_are_told_in_several_requests(
    gateway: TestGateway, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal.db")
    issue(gateway)
    for number in range(25):
        seq = await journal.begin(
            "ana", f'config import {number} "' + "ä\\" * 100, gateway.now_ms()
        )
        await journal.end(seq, "ö" * 200)
    untold = await journal.untold()
    assert untold is not None
    assert len(untold.model_dump_json(by_alias=True).encode()) > MAX_BODY_BYTES
    async with linked(gateway) as link:
        await tell_changes(link, journal)
    assert [each.seq for each in kept(gateway)] == list(range(1, 26))


# --- what the gateway keeps -----------------------------------------------------------------------


@on_both_engines
async def test_a_report_is_kept_once_and_as_it_came_first(gateway: TestGateway) -> None:
    issue(gateway)
    now_ms = gateway.now_ms()
    first, second = change(1, now_ms), change(2, now_ms, outcome="nul\x00 and \x1b[31mred")
    async with linked(gateway) as link:
        body = told(first, second).model_dump_json(by_alias=True).encode()
        answers = [await link.tell(CHANGES_PATH, body, Domain.CHANGES) for _ in range(2)]
        assert answers[0] == answers[1]
        assert [each.outcome for each in kept(gateway)] == ["done", "nul  and  [31mred"]
        assert alerted(gateway) == []
        lie = told(change(2, now_ms, outcome="nothing"), change(3, now_ms, technician="eve"))
        await link.tell(CHANGES_PATH, lie.model_dump_json(by_alias=True).encode(), Domain.CHANGES)
        # A journal that began anew counts anew.
        anew = told(first, journal="jnl_01").model_dump_json(by_alias=True).encode()
        await link.tell(CHANGES_PATH, anew, Domain.CHANGES)
    assert sorted((each.journal, each.seq) for each in kept(gateway)) == [
        (JOURNAL, 1),
        (JOURNAL, 2),
        (JOURNAL, 3),
        ("jnl_01", 1),
    ]
    assert len([note for note in notes(gateway) if note[1] == "report-change"]) == 4
    assert alerted(gateway) == ["it tells change 2 in another way than before"]


@on_both_engines
async def test_names_and_keys_count_once(gateway: TestGateway) -> None:
    issue(gateway)

    def refused(name: str, key: SigningKey, why: str) -> None:
        with pytest.raises(OperatorError, match=why):
            issue(gateway, name, key)

    refused("ben", ANA, "is technician 'ana'")
    refused("ana", SigningKey.generate(), "revoke it first")
    revoke(gateway)
    refused("ana", ANA, "was revoked as technician 'ana'")
    issue(gateway, "ana", SigningKey.generate())  # a new laptop
    with pytest.raises(OperatorError, match="no technician 'eve'"):
        revoke(gateway, "eve")
    with pytest.raises(InputError, match="technician"):
        issue(gateway, "a b", SigningKey.generate())


async def test_a_full_list_fits_into_an_answer(gateway: TestGateway) -> None:
    for number in range(MAX_TECHNICIANS):
        issue(gateway, f"{number:02}" + "x" * 62, SigningKey.generate())
    with pytest.raises(OperatorError, match="a terminal knows no more"):
        issue(gateway, "one-more", SigningKey.generate())
    async with linked(gateway) as link:
        assert len((await roster(link, gateway)).technicians) == MAX_TECHNICIANS


async def test_a_stolen_terminal_does_not_fill_the_disk(gateway: TestGateway) -> None:
    by = By("terminal:x", gateway.now_ms())

    def flood(db: Connection) -> None:
        for start in range(0, MAX_DAILY_CHANGES, 20):
            some = [change(seq, by.at_ms) for seq in range(start + 1, start + 21)]
            technicians.keep(db, TERMINAL, told(*some), by)

    gateway.ledger.write_now(flood)
    assert gateway.rows(terminal_changes) == MAX_DAILY_CHANGES
    with pytest.raises(TooManyChangesError):
        gateway.ledger.write_now(
            lambda db: technicians.keep(db, TERMINAL, told(change(9_999, by.at_ms)), by)
        )
    body = told(change(9_999, by.at_ms)).model_dump_json(by_alias=True).encode()
    assert (await post(gateway, body))[0] == 429
    tomorrow = replace(by, at_ms=by.at_ms + 24 * 3600 * 1000 + 1)
    gateway.ledger.write_now(
        lambda db: technicians.keep(db, TERMINAL, told(change(9_999, by.at_ms)), tomorrow)
    )


async def post(
    gateway: TestGateway, body: bytes, *, domain: Domain = Domain.CHANGES, key: Any = None
) -> tuple[int, Any]:
    headers = {
        TERMINAL_HEADER: TERMINAL,
        SIGNATURE_HEADER: sign(key or gateway.terminal_key, domain, body),
        "Content-Type": "application/json",
    }
    async with gateway.http.post(CHANGES_PATH, data=body, headers=headers) as response:
        return response.status, await response.json()


async def test_what_is_no_report_leaves_no_trace(gateway: TestGateway) -> None:
    now_ms = gateway.now_ms()
    good = told(change(1, now_ms)).model_dump_json(by_alias=True).encode()
    assert (await post(gateway, good, key=SigningKey.generate()))[0] == 401
    assert (await post(gateway, good, domain=Domain.PAYMENT_REQUEST))[0] == 401
    async with gateway.http.post(CHANGES_PATH, data=good) as response:
        assert response.status == 401
    for wrong in (
        told(),
        told(change(2, now_ms), change(1, now_ms)),
        told(change(1, now_ms), change(1, now_ms)),
    ):
        status, answer = await post(gateway, wrong.model_dump_json(by_alias=True).encode())
        assert (status, answer["field"]) == (400, "changes")
    long = good.replace(b"queue retry", b"x" * 201)
    assert (await post(gateway, long))[0] == 400
    assert (await post(gateway, good[:-1] + b" " * MAX_BODY_BYTES + b"}"))[0] == 413
    assert gateway.rows(terminal_changes) == 0


async def test_a_revoked_terminal_may_still_be_put_right(gateway: TestGateway) -> None:
    issue(gateway)
    gateway.ledger.write_now(lambda db: registry.revoke_terminal(db, TERMINAL))
    async with linked(gateway) as link:
        assert [each.name for each in (await roster(link, gateway)).technicians] == ["ana"]
    headers = {**gateway.query_headers(ROSTER_PATH), TERMINAL_HEADER: new_id("term")}
    async with gateway.http.get(ROSTER_PATH, headers=headers) as response:
        assert response.status == 401


# --- the operator's commands ----------------------------------------------------------------------


def test_the_operator_issues_lists_shows_and_revokes(admin: Admin) -> None:
    key = public(ANA)
    admin("terminal", "add", "till", "--merchant", "kiosk", "--public-key", key)
    issued = admin.json("technician", "issue", "ana", "--public-key", key, "--reason", "hired")
    assert issued["status"] == "active"
    assert issued["publicKey"] == key
    (row,) = admin.json("technician", "list")
    assert row["fingerprint"] == issued["fingerprint"]
    at_ms = 1_800_000_000_000
    admin.do(lambda db: technicians.keep(db, "till", told(change(1, at_ms)), BY))
    (made,) = admin.json("terminal", "changes", "till")
    assert (made["technician"], made["command"], made["outcome"]) == ("ana", "queue retry", "done")
    assert "queue retry" in admin("terminal", "changes")
    with pytest.raises(OperatorError, match="no terminal 'tiil'"):
        admin("terminal", "changes", "tiil")
    admin("technician", "revoke", "ana")
    assert admin.json("technician", "list") == []
    shown = admin.json("technician", "show", "ana")
    assert [each["status"] for each in shown["keys"]] == ["revoked"]
    assert [each["seq"] for each in shown["changes"]] == [1]
    assert "ana" in admin("technician", "list", "--all")
    with pytest.raises(OperatorError, match="revoked already"):
        admin("technician", "revoke", "ana")
    actions = [each["action"] for each in admin.json("history")]
    assert actions[:3] == ["revoke-technician", "report-change", "issue-technician"]
