"""The audit log: what it tells, and that nothing of it can be changed without being noticed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from sqlalchemy import Connection, delete, insert, select, update
from typer.testing import CliRunner

from taprail_common.errors import InputError
from taprail_common.signing import load_key_file
from taprail_gateway import audit
from taprail_gateway.admin import app
from taprail_gateway.audit_check import AuditReport, check_audit
from taprail_gateway.ledger import audit_log
from taprail_gateway.ledger.audit_log import Link, Wanted
from taprail_gateway.ledger.group_commit import MAX_GROUP
from taprail_gateway.ledger.schema import audit_links, verdicts
from tests.support.admin_fixtures import Admin
from tests.support.gateway_fixtures import UNIT, TestGateway, gateway_beside, running_gateway
from tests.support.ledger_fixtures import on_both_engines, on_postgres

_l = audit_links.c


async def fill(gateway: TestGateway) -> None:
    """Some commits of one decision, and one of several."""
    cards = [gateway.card(f"04AABBCCDDEE{n:02X}") for n in range(6)]
    for card in cards[:3]:
        await gateway.pay(card, amount=UNIT)
    await gateway.pay(cards[3], amount=51 * UNIT)
    await asyncio.gather(*(gateway.pay(card, amount=UNIT) for card in cards))


def report_of(gateway: TestGateway) -> AuditReport:
    return gateway.ledger.read_now(lambda c: check_audit(c, gateway.public_key))


def all_links(gateway: TestGateway) -> list[Link]:
    return gateway.ledger.read_now(lambda connection: list(audit_log.links(connection)))


@on_both_engines
async def test_every_decision_is_told_with_its_reasons(tmp_path: Path, ledger_url: str) -> None:
    async with running_gateway(tmp_path, ledger_url=ledger_url) as gateway:
        await fill(gateway)
        report = report_of(gateway)
        assert (report.problems, report.chains, report.decisions) == ([], 1, 10)
        assert 5 <= report.links <= 10
        told = [each for link in all_links(gateway) for each in link.decisions()]
        assert [each["decision"] for each in told].count("approved") == 9
        (declined,) = [each for each in told if each["decision"] != "approved"]
        assert declined["decision"] == "single_limit"
        assert declined["why"].startswith("Amount exceeds single transaction limit")
        assert {"requester", "requestId", "terminal", "card", "amount"} <= declined.keys()


async def test_what_is_stored_of_a_decision_is_small_and_no_secret(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        card = gateway.card("04AABBCCDDEE77")
        proof = card.tap()
        long = {"requestId": "r" * 64, "merchantId": "m" * 64, "terminalId": "counter-1"}
        await gateway.post(gateway.request(proof, **long))
        (link,) = all_links(gateway)
        assert len(link.entries) < audit.MAX_ENTRY_BYTES
        assert MAX_GROUP * audit.MAX_ENTRY_BYTES < 200_000
        for secret in ("04AABBCCDDEE77", proof["mac"], proof["piccData"]):
            assert secret.lower() not in link.entries.lower()


async def test_a_retry_is_no_new_decision(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        request = gateway.request(gateway.card().tap())
        for _ in range(3):
            await gateway.post(request)
        assert [len(link.decisions()) for link in all_links(gateway)] == [1]


def swap(connection: Connection) -> None:
    """Let two links change places."""
    for old, new in ((1, 99), (2, 1), (99, 2)):
        connection.execute(update(audit_links).where(_l.seq == old).values(seq=new))


def rehash(connection: Connection) -> None:
    """Change a decision and mend the digest, as one could without the gateway's key."""
    row = connection.execute(select(audit_links).where(_l.seq == 2)).mappings().one()
    entries = json.loads(row["entries"])
    entries[0]["amount"] += 1
    changed = Link(**{**row, "entries": json.dumps(entries)})
    values = {"entries": changed.entries, "digest": audit.digest_of(changed)}
    connection.execute(update(audit_links).where(_l.seq == 2).values(values))


def add(connection: Connection) -> None:
    """A link at the end, by another key."""
    chain, seq, digest = connection.execute(
        select(_l.chain, _l.seq, _l.digest).order_by(_l.seq.desc()).limit(1)
    ).one()
    made = audit.link(SigningKey.generate(), chain, seq + 1, digest, [], 1)
    audit_log.append(connection, made)


def cut_the_end(connection: Connection) -> None:
    last = connection.scalar(select(_l.seq).order_by(_l.seq.desc()).limit(1))
    connection.execute(delete(audit_links).where(_l.seq == last))


def change_a_verdict(connection: Connection) -> None:
    connection.execute(update(verdicts).values(body=b"{}"))


TAMPERINGS: list[tuple[Callable[[Connection], Any], str]] = [
    (lambda c: c.execute(update(audit_links).where(_l.seq == 1).values(at_ms=1)), "was changed"),
    (
        lambda c: c.execute(update(audit_links).where(_l.seq == 1).values(entries="no JSON")),
        "was changed",
    ),
    (rehash, "not signed"),
    (lambda c: c.execute(delete(audit_links).where(_l.seq == 2)), "missing or were moved"),
    (lambda c: c.execute(delete(audit_links).where(_l.seq == 0)), "missing or were moved"),
    (cut_the_end, "verdicts were given since"),
    (add, "not signed"),
    (swap, "was changed"),
    (
        lambda c: c.execute(
            insert(audit_links).from_select(
                [column.name for column in _l],
                select(audit_links).with_only_columns(
                    *(_l.seq + 100 if column.name == "seq" else column for column in _l)
                ),
            )
        ),
        "was changed",
    ),
    (change_a_verdict, "whose verdict is another"),
]


@pytest.mark.parametrize(("tamper", "told"), TAMPERINGS)
async def test_what_was_tampered_with_is_noticed(
    tmp_path: Path, tamper: Callable[[Connection], Any], told: str
) -> None:
    async with running_gateway(tmp_path) as gateway:
        await fill(gateway)
        assert report_of(gateway).problems == []
        gateway.ledger.write_now(tamper)
        problems = report_of(gateway).problems
    assert any(told in problem for problem in problems), problems


async def test_a_chain_that_another_one_follows_cannot_vanish(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    async with running_gateway(tmp_path) as first:
        await first.pay(first.card())
        (chain,) = {link.chain for link in all_links(first)}
        await first.ledger.close()
        async with gateway_beside(first, url) as second:
            await second.pay(second.card("04AABBCCDDEE02"))
            assert report_of(second).problems == []
            assert report_of(second).chains == 2
            second.ledger.write_now(
                lambda c: c.execute(delete(audit_links).where(_l.chain == chain))
            )
            assert "goes on from a link that is missing" in " ".join(report_of(second).problems)


@on_postgres
async def test_two_gateways_write_a_chain_each(tmp_path: Path, ledger_url: str) -> None:
    async with (
        running_gateway(tmp_path, ledger_url=ledger_url) as first,
        gateway_beside(first, ledger_url) as second,
    ):
        cards = [first.card(f"04AABBCCDDEE{n:02X}") for n in range(8)]
        await first.pay(cards[0])
        for _ in range(3):
            await asyncio.gather(
                *(gateway.pay(card) for card in cards[:4] for gateway in (first,)),
                *(gateway.pay(card) for card in cards[4:] for gateway in (second,)),
            )
        report = report_of(first)
        assert (report.problems, report.chains, report.decisions) == ([], 2, 25)


def test_the_command_says_what_is_wrong_and_fails(admin: Admin) -> None:
    key = load_key_file(admin.settings.key_file, "gateway key")
    first = audit.link(key, "chain-1", 0, "", [], 1)
    admin.do(lambda c: audit_log.append(c, first))
    assert admin.json("audit", "verify") == {
        "ok": True,
        "links": 1,
        "decisions": 0,
        "chains": 1,
        "problems": [],
        "more": 0,
    }
    admin.do(lambda c: audit_log.append(c, audit.link(key, "chain-1", 2, first.digest, [], 1)))
    result = CliRunner().invoke(app, ["--config", str(admin.config), "audit", "verify"])
    assert result.exit_code == 1
    assert "link 2 of chain-1 comes where 1 should be" in result.stdout


# --- audit list -----------------------------------------------------------------------------------

AT_MS = 1_800_000_000_000


def decision(name: str, code: str = "approved", **more: Any) -> dict[str, Any]:
    return {
        "requester": "t_1",
        "requestId": name,
        "terminal": "t_1",
        "card": "card_1",
        "profile": "sun",
        "amount": 2_500_000,
        "decision": code,
        "verdict": "0" * 64,
        **more,
    }


@pytest.fixture
def decided(admin: Admin) -> Admin:
    """Three commits, an hour after each other: of one decision, of three and of one."""
    key = load_key_file(admin.settings.key_file, "gateway key")
    groups = [
        [decision("r1")],
        [
            decision("r2", "daily_limit", why="Insufficient daily limit: 0.20 left today"),
            decision("r3", terminal="t%1", card="card%1"),
            decision(
                *("r4", "high_fraud_risk"),
                why="High fraud risk: the card was tapped 9 times in a minute",
                points=60,
                rules={"card_minute": "the card was tapped 9 times in a minute"},
            ),
        ],
        [decision("r5", "card_unknown", card=None, why="The card is not known here [yet]")],
    ]

    def write(connection: Connection) -> None:
        previous = ""
        for seq, group in enumerate(groups):
            link = audit.link(key, "chain-1", seq, previous, group, AT_MS + seq * 3_600_000)
            audit_log.append(connection, link)
            previous = link.digest

    admin.do(write)
    return admin


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "r5 r4 r3 r2 r1"),
        (("--limit", "2"), "r5 r4"),
        (("--card", "card_1"), "r4 r2 r1"),
        (("--card", "card%1"), "r3"),
        (("--card", "card"), ""),
        (("--terminal", "t_1"), "r5 r4 r2 r1"),
        (("--terminal", "r1"), ""),  # it is there, under another name
        (("--decision", "approved"), "r3 r1"),
        (("--decision", "declined"), "r5 r4 r2"),
        (("--decision", "declined", "--limit", "1"), "r5"),
        (("--decision", "daily_limit", "--card", "card_1"), "r2"),
        (("--since", "2027-01-15T09:00"), "r5 r4 r3 r2"),
        (("--until", "2027-01-15T10:00+01:00"), "r1"),
        (("--since", "2027-01-15T09:00", "--until", "2027-01-15T10:00"), "r4 r3 r2"),
        (("--since", "2027-01-16"), ""),
    ],
)
def test_decisions_are_listed_the_newest_first(
    decided: Admin, options: tuple[str, ...], expected: str
) -> None:
    assert [each["requestId"] for each in decided.json("audit", "list", *options)] == (
        expected.split()
    )


def test_reasons_are_shown_with_what_to_do(decided: Admin) -> None:
    (told,) = decided.json("audit", "list", "--decision", "high_fraud_risk")
    assert (told["at"], told["chain"], told["link"]) == ("2027-01-15T09:00:00.000Z", "chain-1", 1)
    assert told["rules"] == {"card_minute": "the card was tapped 9 times in a minute"}
    assert "[fraud]" in told["whatToDo"]
    (approved,) = decided.json("audit", "list", "--decision", "approved", "--terminal", "t_1")
    assert approved["whatToDo"] is None
    text = " ".join(decided("audit", "list").replace("│", " ").split())
    for words in ("[yet]", "2.50", "card_unknown", "unknown", "approved"):
        assert words in text


def test_a_spoilt_link_hides_no_other(decided: Admin) -> None:
    decided.do(lambda c: c.execute(update(audit_links).where(_l.seq == 1).values(entries="no")))
    assert [each["requestId"] for each in decided.json("audit", "list")] == ["r5", "r1"]


@pytest.mark.parametrize("time", ["yesterday", "2027-13-01", ""])
def test_a_time_that_is_none_is_refused(decided: Admin, time: str) -> None:
    with pytest.raises(InputError, match="since: must be like"):
        decided("audit", "list", "--since", time)


@on_both_engines
async def test_what_a_gateway_has_decided_is_found(tmp_path: Path, ledger_url: str) -> None:
    async with running_gateway(tmp_path, ledger_url=ledger_url) as gateway:
        await fill(gateway)
        card = gateway.card("04AABBCCDDEE99")
        await gateway.pay(card, amount=51 * UNIT)
        wanted = Wanted(card=card.issued.card_uuid, decision="single_limit")
        found = gateway.ledger.read_now(lambda c: list(audit_log.decisions(c, wanted)))
        assert [each.entry["card"] for each in found] == [card.issued.card_uuid]
        all_of_it = gateway.ledger.read_now(lambda c: list(audit_log.decisions(c, Wanted())))
        assert len(all_of_it) == 11
