"""A card's life by the operator's commands: issued, shown, limited, ended, replaced, imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from taprail_common.errors import TapRailError
from taprail_gateway import card_life
from taprail_gateway.admin import app
from taprail_gateway.ledger import actions, schema
from taprail_gateway.ledger.actions import Action
from tests.support.admin_fixtures import Admin

UID, NEXT_UID = "04AABBCCDDEE01", "04AABBCCDDEE02"
SIGNING = "0x" + "ab" * 20


def issue(admin: Admin, *options: str, uid: str = UID) -> str:
    issued = admin.json("card", "issue", "--uid", uid, "--user", "alice", *options)
    return str(issued["cardUuid"])


def noted(admin: Admin) -> list[Action]:
    return list(reversed(admin.do(lambda connection: actions.history(connection, 100))))


def test_a_card_is_shown_with_all_but_its_secrets(admin: Admin) -> None:
    card = issue(admin, "--single-limit", "5.00", "--daily-limit", "20.00", "--name", "Blue one")
    shown = admin.json("card", "show", card)
    assert (shown["uuid"], shown["name"], shown["status"]) == (card, "Blue one", "active")
    assert (shown["single_limit_units"], shown["daily_limit_units"]) == (5_000_000, 20_000_000)
    assert (shown["balance_units"], shown["held_units"], shown["spent_today_units"]) == (0, 0, 0)
    assert shown["last_payment"] is None
    assert "fresh tap" in shown["proves"]
    digest = admin.do(lambda c: c.scalar(select(schema.cards.c.uid_digest)))
    for text in (str(shown), admin("card", "show", card)):
        assert UID not in text.upper()
        assert str(digest) not in text
        assert "wrapped" not in text
    assert "5.00 TUSD" in admin("card", "show", card)
    with pytest.raises(TapRailError, match="there is no card 'nobody'"):
        admin("card", "show", "nobody")


def test_a_weak_card_is_shown_as_such(admin: Admin) -> None:
    card = issue(admin, "--profile", "uid")
    assert "WEAK" in admin.json("card", "show", card)["proves"]
    assert "uid (weak)" in admin("card", "show", card)


def test_what_is_spent_and_held_is_shown(admin: Admin) -> None:
    card = issue(admin)
    day = admin.json("card", "show", card)["today"]
    account = schema.accounts.update().values(balance_units=900, held_units=40)
    spend = schema.card_spend.insert().values(card_uuid=card, day=day, spent_units=40)
    admin.do(lambda c: (c.execute(account), c.execute(spend)))
    shown = admin.json("card", "show", card)
    told = [shown[f"{name}_units"] for name in ("balance", "held", "spent_today")]
    assert told == [900, 40, 40]


def test_every_change_is_on_record(admin: Admin) -> None:
    card = issue(admin)
    admin("card", "freeze", card, "--reason", "reported lost")
    admin("card", "unfreeze", card)
    admin("card", "limits", card, "--single", "1.00")
    admin("card", "expire", card, "--on", "2999-12-31")
    successor = admin.json("card", "replace", card, "--uid", NEXT_UID)["cardUuid"]
    told = [(each.action, each.subject, each.reason) for each in noted(admin)]
    assert told == [
        ("card-issue", card, None),
        ("card-freeze", card, "reported lost"),
        ("card-unfreeze", card, None),
        ("card-limits", card, None),
        ("card-expire", card, None),
        ("card-replace", card, None),
    ]
    limits, replaced = noted(admin)[3], noted(admin)[5]
    assert limits.before == {"single": 500_000, "daily": 2_000_000}
    assert limits.after == {"single": 1_000_000, "daily": 2_000_000}
    assert replaced.after == successor
    assert UID not in str(noted(admin)).upper()


def test_a_card_ends_now_or_on_a_day_and_may_be_prolonged(admin: Admin) -> None:
    card = issue(admin, "--time-zone", "Asia/Tokyo")
    admin("card", "expire", card)
    assert admin.json("card", "show", card)["status"] == "expired"
    assert admin.json("card", "list")[0]["status"] == "expired"
    ended = admin.json("card", "expire", card, "--on", "2099-12-31")
    assert ended["expiresAtMs"] == 4_102_412_400_000  # 2100-01-01T00:00+09:00
    assert admin.json("card", "show", card)["status"] == "active"
    assert "2099-12-31" in admin("card", "show", card)
    assert admin.json("card", "expire", card, "--never")["expiresAtMs"] is None
    for options in (("--on", "31.12.2099"), ("--on", "0001-01-01"), ("--on", "3000-01-01")):
        with pytest.raises(TapRailError, match="on: must be"):
            admin("card", "expire", card, *options)
    with pytest.raises(TapRailError, match="--never"):
        admin("card", "expire", card, "--on", "2099-12-31", "--never")
    assert admin.json("card", "show", card)["expires_at_ms"] is None


def test_the_last_day_is_that_of_the_cards_time_zone() -> None:
    for zone in ("UTC", "Asia/Tokyo", "America/Los_Angeles", "Europe/Berlin"):
        for day in ("2027-03-27", "2027-03-28", "2027-10-30", "2027-10-31"):
            assert card_life.last_day(card_life.end_of_day_ms(day, zone), zone) == day


def test_a_replaced_card_leaves_its_account_to_the_new_one_for_good(admin: Admin) -> None:
    old = issue(admin, "--single-limit", "5.00", "--time-zone", "Europe/Berlin")
    admin("card", "freeze", old)
    answer = admin.json("card", "replace", old, "--uid", NEXT_UID, "--name", "New one")
    before, after = (admin.json("card", "show", each) for each in (old, answer["cardUuid"]))
    assert (before["status"], before["replaced_by"]) == ("expired", after["uuid"])
    assert (after["status"], after["account"]) == ("active", before["account"])
    assert (after["name"], after["time_zone"]) == ("New one", "Europe/Berlin")
    assert after["single_limit_units"] == 5_000_000
    for command in (("unfreeze",), ("freeze",), ("expire", "--never")):
        with pytest.raises(TapRailError, match=f"its account has {after['uuid']} now"):
            admin("card", command[0], old, *command[1:])
    with pytest.raises(TapRailError, match="was replaced for good"):
        admin("card", "replace", old, "--uid", "04AABBCCDDEE03")
    with pytest.raises(TapRailError, match="issued before"):
        admin("card", "replace", after["uuid"], "--uid", UID)
    assert len(admin.json("card", "list")) == 2


def test_a_weak_card_is_replaced_by_one_that_proves_itself(admin: Admin) -> None:
    weak = issue(admin, "--profile", "uid")
    new = admin.json("card", "replace", weak, "--uid", NEXT_UID, "--profile", "sun")["cardUuid"]
    assert admin.json("card", "show", new)["profile"] == "sun"
    strong = issue(admin, "--single-limit", "50.00", "--daily-limit", "90.00", uid="04" * 7)
    with pytest.raises(TapRailError, match="can be copied"):
        admin("card", "replace", strong, "--uid", "05" * 7, "--profile", "uid")
    assert admin.json("card", "show", strong)["status"] == "active"


def test_a_card_that_signs_cannot_be_replaced(admin: Admin) -> None:
    command = ("card", "issue", "--profile", "signed", "--user", "alice", "--address", SIGNING)
    card = admin.json(*command)["cardUuid"]
    with pytest.raises(TapRailError, match="alone can spend from its account"):
        admin("card", "replace", card, "--uid", UID)
    assert admin.json("card", "show", card)["status"] == "active"


# --- import ---------------------------------------------------------------------------------------


def csv_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "cards.csv"
    path.write_bytes(text.encode())
    return str(path)


def refused(admin: Admin, *arguments: str) -> Any:
    result = CliRunner().invoke(app, ["--config", str(admin.config), *arguments])
    assert result.exit_code == 1, result.output
    return result.stdout


def test_a_file_of_cards_is_issued(admin: Admin, tmp_path: Path) -> None:
    file = csv_file(
        tmp_path,
        "\ufeffuid,user,name,single_limit,profile,address,time_zone,expires_on\r\n"
        f'{UID},alice,"Blue, one",5.00,,,Europe/Berlin,2099-12-31\r\n'
        "\r\n"
        "04:AA:BB:CC:DD:EE:02,alice,,,uid,,,\r\n"
        f",alice,,,signed,{SIGNING},,\r\n",
    )
    planned = admin("card", "import", file, "--dry-run")
    assert "3 cards could be issued; none was" in planned
    assert admin.json("card", "list") == []
    done = admin.json("card", "import", file)
    assert (done["lines"], len(done["issued"]), done["problems"]) == (3, 3, [])
    cards = {card["profile"]: card for card in admin.json("card", "list")}
    assert set(cards) == {"sun", "uid", "signed"}
    assert (cards["sun"]["name"], cards["sun"]["single_limit_units"]) == ("Blue, one", 5_000_000)
    assert cards["signed"]["account"] == SIGNING
    assert {each.reason for each in noted(admin)} == {"import of cards.csv"}


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_issued(
    admin: Admin, tmp_path: Path
) -> None:
    rows = [
        (f"{UID},alice,,,", ""),
        (f"{UID},alice,,,", "this card was issued before"),
        ("zz,alice,,,", "uid: must be hex digits"),
        ("04AA,alice,,,", "uid: has not the length"),
        (f"{NEXT_UID},nobody,,,", "there is no user 'nobody'"),
        (f"{NEXT_UID},,,,", "user: is missing"),
        (f"{NEXT_UID},alice,1.2345678,,", "single_limit: "),
        (f"{NEXT_UID},alice,,gold,", "profile: must be one of"),
        (f"{NEXT_UID},alice,,,Mars/Base", "time_zone: is not known"),
    ]
    text = "uid,user,single_limit,profile,time_zone\n" + "\n".join(row for row, _ in rows)
    file = csv_file(tmp_path, text)
    told = refused(admin, "card", "import", file)
    for number, (_, problem) in enumerate(rows, start=2):
        assert (f"line {number}: {problem}" in told) == bool(problem), told
    assert "None of 9 cards was issued" in told
    assert UID not in told.upper()
    assert admin.json("card", "list") == []
    assert noted(admin) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing user"),
        ("uid,colour,user\n", "unknown colour"),
        ("uid,user,uid\n", "one twice"),
        ("uid,user\n", "has no cards"),
        ("uid,user\n04,alice,x\n", "line 2 has 3 columns, not 2"),
        ('uid,user\n"04,alice\n', "is not CSV"),
        ("uid,user\n" + "04,alice\n" * 10_001, "more than 10000 cards"),
        ("uid,user\n" + "x" * 4_194_304, "more than 4194304 bytes"),
    ],
)
def test_a_file_that_is_none_of_cards_is_refused(
    admin: Admin, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(TapRailError, match=message):
        admin("card", "import", csv_file(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(admin: Admin, tmp_path: Path) -> None:
    with pytest.raises(TapRailError, match="cannot be read"):
        admin("card", "import", str(tmp_path / "none.csv"))
    (tmp_path / "latin.csv").write_bytes(b"user\n\xff\xfe")
    with pytest.raises(TapRailError, match="is not UTF-8"):
        admin("card", "import", str(tmp_path / "latin.csv"))
