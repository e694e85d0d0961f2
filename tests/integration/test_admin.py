"""The operator's commands on a real ledger, in this process and as the installed program."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
from nacl.signing import SigningKey
from sqlalchemy import select
from typer.testing import CliRunner

from taprail_common.errors import TapRailError
from taprail_common.signing import fingerprint, load_key_file, public_key_text
from taprail_gateway import facts
from taprail_gateway.admin import app
from taprail_gateway.custody import Custody
from taprail_gateway.facts import LedgerFacts
from taprail_gateway.ledger import queries, schema, transitions
from taprail_gateway.tokens import Tokens
from tests.support.admin_fixtures import ACCOUNT, Admin


def issue(admin: Admin, *options: str, uid: str = "04AABBCCDDEE01") -> Any:
    return admin.json("card", "issue", "--uid", uid, "--user", "alice", *options)


def test_init_makes_what_is_missing_once(tmp_path: Path) -> None:
    admin = Admin(tmp_path)
    first = admin.json("init")
    settings = admin.settings
    secrets = (settings.key_file, settings.master_key_file, settings.jwt_secret_file)
    assert sorted(first["created"]) == sorted(map(str, (*secrets, settings.database_file)))
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in secrets)
    before = [path.read_bytes() for path in secrets]
    again = admin.json("init")
    assert again == {**first, "created": []}
    assert [path.read_bytes() for path in secrets] == before
    assert first["lane"].startswith("0x")
    key = load_key_file(settings.key_file, "gateway key").verify_key
    assert first["publicKey"] == public_key_text(key)


def test_init_never_makes_new_keys_for_an_old_ledger(admin: Admin) -> None:
    admin.settings.master_key_file.unlink()
    with pytest.raises(TapRailError, match="restore it from its backup"):
        admin("init")
    assert not admin.settings.master_key_file.exists()


def test_a_terminal_is_added_listed_and_revoked(admin: Admin) -> None:
    key = SigningKey.generate().verify_key
    added = admin.json(
        "terminal", "add", "t1", "--merchant", "kiosk", "--public-key", public_key_text(key)
    )
    assert added["fingerprint"] == fingerprint(key)
    admin("terminal", "revoke", "t1")
    (listed,) = admin.json("terminal", "list")
    assert (listed["id"], listed["status"], listed["merchant_id"]) == ("t1", "revoked", "kiosk")
    assert fingerprint(key) in admin("terminal", "list")


def test_a_card_is_issued_with_limits_in_decimal_text(admin: Admin) -> None:
    issued = issue(admin, "--single-limit", "50.00", "--daily-limit", "200", "--name", "Demo")
    (listed,) = admin.json("card", "list")
    assert (listed["uuid"], listed["account"]) == (issued["cardUuid"], issued["account"])
    assert listed["single_limit_units"] == 50_000_000
    assert listed["daily_limit_units"] == 200_000_000
    admin("card", "limits", issued["cardUuid"], "--single", "10.5")
    (listed,) = admin.json("card", "list")
    assert listed["single_limit_units"] == 10_500_000
    assert listed["daily_limit_units"] == 200_000_000
    assert "10.50 TUSD" in admin("card", "list")


def test_default_limits_are_those_of_the_contract(admin: Admin) -> None:
    issue(admin)
    (listed,) = admin.json("card", "list")
    assert (listed["single_limit_units"], listed["daily_limit_units"]) == (500_000, 2_000_000)


def test_a_cards_keys_leave_only_into_a_private_file(admin: Admin, tmp_path: Path) -> None:
    keys_file = tmp_path / "keys.json"
    printed = admin(
        "card", "issue", "--uid", "04AABBCCDDEE01", "--user", "alice", "--show-keys", str(keys_file)
    )
    keys = json.loads(keys_file.read_text())
    assert stat.S_IMODE(keys_file.stat().st_mode) == 0o600
    assert len(bytes.fromhex(keys["sdmFileReadKey"])) == 16
    assert keys["sdmFileReadKey"] not in printed
    assert keys["sdmMetaReadKey"] not in printed
    with pytest.raises(TapRailError, match="exists already"):
        issue(admin, "--show-keys", str(keys_file), uid="04AABBCCDDEE02")
    assert len(admin.json("card", "list")) == 1


def test_the_ledger_holds_no_uid_and_knows_the_card_again(admin: Admin) -> None:
    issue(admin)
    assert bytes.fromhex("04AABBCCDDEE01") not in admin.settings.database_file.read_bytes()
    assert b"04AABBCCDDEE01" not in admin.settings.database_file.read_bytes().upper()
    with pytest.raises(TapRailError, match="issued before") as error:
        issue(admin)
    assert "04AABBCCDDEE01" not in str(error.value)


SIGNING = "0x" + "Ab" * 20


def test_a_card_that_signs_brings_its_own_account(admin: Admin) -> None:
    command = ("card", "issue", "--profile", "signed", "--user", "alice", "--address", SIGNING)
    issued = admin.json(*command)
    (listed,) = admin.json("card", "list")
    assert (listed["uuid"], listed["profile"]) == (issued["cardUuid"], "signed")
    assert listed["account"] == issued["account"] == SIGNING.lower()
    # Nobody here could sign for it.
    keys = admin.do(lambda c: c.execute(select(schema.accounts.c.wrapped_key)).scalars().all())
    assert keys == [None]
    with pytest.raises(TapRailError, match="issued before"):
        admin(*command)
    assert len(admin.json("card", "list")) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--profile", "signed"), "address: belongs to a card that signs"),
        (("--address", SIGNING, "--uid", "04" * 7), "address: belongs to a card that signs"),
        (("--profile", "signed", "--address", SIGNING, "--uid", "04" * 7), "uid"),
        (("--profile", "signed", "--address", "0x12"), "must be 0x and 40 hex digits"),
        (("--profile", "signed", "--address", "0x" + "0" * 40), "not zero"),
        (("--profile", "signed", "--address", SIGNING, "--show-keys", "k"), "is given no keys"),
        (("--profile", "gold", "--uid", "04" * 7), "must be one of sun, uid, signed"),
        ((), "uid"),
        (("--profile", "uid", "--uid", "04" * 7, "--single-limit", "5.01"), "can be copied"),
        (("--profile", "uid", "--uid", "04" * 7, "--daily-limit", "20.01"), "can be copied"),
    ],
)
def test_a_card_is_known_by_its_uid_or_by_its_address(
    admin: Admin, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TapRailError, match=message):
        admin("card", "issue", "--user", "alice", *options)
    assert admin.json("card", "list") == []


def test_a_card_that_can_be_copied_is_marked_and_never_pays_much(admin: Admin) -> None:
    card = issue(admin, "--profile", "uid", "--single-limit", "5.00", "--daily-limit", "20.00")
    assert "(weak)" in admin("card", "list")
    for limit, amount in (("--single", "5.01"), ("--daily", "20.01")):
        with pytest.raises(TapRailError, match="can be copied"):
            admin("card", "limits", card["cardUuid"], limit, amount)
    admin("card", "limits", card["cardUuid"], "--single", "1.00")
    (listed,) = admin.json("card", "list")
    assert (listed["single_limit_units"], listed["daily_limit_units"]) == (1_000_000, 20_000_000)


def test_cards_freeze_and_thaw(admin: Admin) -> None:
    card = issue(admin)["cardUuid"]
    for command, status in (("freeze", "frozen"), ("unfreeze", "active")):
        admin("card", command, card)
        assert admin.json("card", "list")[0]["status"] == status


def test_users_freeze_and_thaw(admin: Admin) -> None:
    admin("user", "add", "rita")
    for command, status in (("freeze", "frozen"), ("unfreeze", "active")):
        admin("user", command, "rita", "--reason", "phone stolen")
        by_id = {each["id"]: each["status"] for each in admin.json("user", "list")}
        assert by_id["rita"] == status
    with pytest.raises(TapRailError, match="there is no user 'nobody'"):
        admin("user", "freeze", "nobody")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("card", "freeze", "nocard"), "there is no card 'nocard'"),
        (("terminal", "revoke", "t9"), "there is no terminal 't9'"),
        (("token", "issue", "--user", "nobody"), "there is no user 'nobody'"),
        (("merchant", "add", "m", "--account", "0x12"), "account"),
        (("merchant", "add", "m", "--account", ACCOUNT, "--user", "nobody"), "no user 'nobody'"),
        (("merchant", "add", "kiosk", "--account", ACCOUNT), "'kiosk' exists already"),
        (("user", "add", "a b"), "user"),
        (("user", "add", "x", "--role", "king"), "role"),
        (("terminal", "add", "t", "--merchant", "kiosk", "--public-key", "12"), "Ed25519"),
        (("card", "issue", "--uid", "04AA", "--user", "alice"), "uid"),
        (("card", "issue", "--uid", "zz", "--user", "alice"), "uid"),
        (
            ("card", "issue", "--uid", "04" * 7, "--user", "alice", "--time-zone", "Mars/Base"),
            "time_zone",
        ),
        (
            ("card", "issue", "--uid", "04" * 7, "--user", "alice", "--single-limit", "1.2345678"),
            "amount",
        ),
        (("payment", "show", "0x12345678"), "no payment"),
        (("payment", "show", "'; drop"), "not how a payment's id begins"),
    ],
)
def test_what_is_wrong_is_named(admin: Admin, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(TapRailError, match=message):
        admin(*arguments)


def test_a_token_names_its_user(admin: Admin) -> None:
    issued = admin.json("token", "issue", "--user", "alice", "--days", "1")
    assert Tokens.load(admin.settings.jwt_secret_file).check(issued["token"]).user_id == "alice"


def test_a_token_is_good_for_no_more_than_its_user(admin: Admin) -> None:
    admin("user", "add", "olga", "--role", "operator")
    issued = admin.json(
        *("token", "issue", "--user", "olga", "--scope", "operator", "--scope", "merchant")
    )
    assert issued["scopes"] == ["merchant", "operator"]
    checked = Tokens.load(admin.settings.jwt_secret_file).check(issued["token"])
    assert checked.scopes == {"merchant", "operator"}
    with pytest.raises(TapRailError, match="more than the role customer of alice allows"):
        admin("token", "issue", "--user", "alice", "--scope", "operator")


def test_a_token_is_listed_by_its_id_and_revoked_by_it(admin: Admin) -> None:
    made = [admin.json("token", "issue", "--user", "alice") for _ in range(2)]
    first, second = (each["id"] for each in made)
    claims = jwt.decode(made[0]["token"], options={"verify_signature": False})
    assert claims["jti"] == first
    listed = admin.json("token", "list", "--user", "alice")
    assert {each["id"]: each["status"] for each in listed} == {first: "active", second: "active"}
    assert not any(each["token"] in admin("token", "list", "--all") for each in made)
    admin("token", "revoke", first, "--reason", "phone stolen")
    assert [each["id"] for each in admin.json("token", "list")] == [second]
    both = {each["id"]: each["status"] for each in admin.json("token", "list", "--all")}
    assert both == {first: "revoked", second: "active"}
    with pytest.raises(TapRailError, match="no token 'tok_x' was issued here"):
        admin("token", "revoke", "tok_x")


def test_a_terminal_is_frozen_thawed_and_revoked_for_good(admin: Admin) -> None:
    key = SigningKey.generate().verify_key.encode().hex()
    admin("terminal", "add", "counter-1", "--merchant", "kiosk", "--public-key", key)
    for command, status in (("freeze", "frozen"), ("unfreeze", "active"), ("revoke", "revoked")):
        assert admin.json("terminal", command, "counter-1", "--reason", "x")["status"] == status
        assert [each["status"] for each in admin.json("terminal", "list")] == [status]
    with pytest.raises(TapRailError, match="revoked for good"):
        admin("terminal", "unfreeze", "counter-1")


def test_a_rotated_secret_signs_and_the_former_one_verifies_until_it_is_retired(
    admin: Admin,
) -> None:
    path = admin.settings.jwt_secret_file
    old = admin.json("token", "issue", "--user", "alice")["token"]
    key_id = admin.json("token", "rotate")["keyId"]
    new = admin.json("token", "issue", "--user", "alice")["token"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert jwt.get_unverified_header(new)["kid"] == key_id
    both = Tokens.load(path)
    assert [both.check(token).user_id for token in (old, new)] == ["alice", "alice"]
    admin("token", "retire")
    one = Tokens.load(path)
    assert one.check(new).user_id == "alice"
    with pytest.raises(TapRailError, match="not valid"):
        one.check(old)
    assert [each.name for each in path.parent.iterdir() if "jwt" in each.name] == [path.name]


def test_a_paused_lane_is_listed_with_its_cause_and_resumed(admin: Admin) -> None:
    [lane] = admin.json("lane", "list")
    assert lane["paused_because"] is None
    with pytest.raises(TapRailError, match="is not paused"):
        admin("lane", "resume", lane["address"])
    ledger = admin.ledger()
    ledger.write_now(lambda c: transitions.pause_lane(c, lane["address"], "permanent: reverted"))
    ledger.dispose()
    assert admin.json("lane", "list")[0]["paused_because"] == "permanent: reverted"
    assert admin.json("lane", "resume", lane["address"].upper().replace("X", "x"))["was"] == (
        "permanent: reverted"
    )
    assert admin.json("lane", "list")[0]["paused_because"] is None
    with pytest.raises(TapRailError, match="there is no lane"):
        admin("lane", "resume", ACCOUNT)


def test_check_tells_what_is_wrong(admin: Admin) -> None:
    assert admin.json("check") == {"ok": True, "problems": [], "completedUnits": {"kiosk": 0}}
    account = issue(admin)["account"]
    ledger = admin.ledger()
    ledger.write_now(
        lambda connection: connection.execute(
            schema.accounts.update()
            .where(schema.accounts.c.address == account)
            .values(balance_units=5, held_units=5)
        )
    )
    ledger.dispose()
    result = CliRunner().invoke(app, ["--config", str(admin.config), "check"])
    assert result.exit_code == 1
    assert account in result.stdout


def test_a_ledger_is_not_taken_for_another_tokens(admin: Admin) -> None:
    ledger = admin.ledger()
    known = ledger.read_now(facts.known)
    assert known is not None
    other = LedgerFacts(1, known.token, known.currency, known.decimals, known.gateway_key)
    with pytest.raises(TapRailError, match="belongs to chain id 31337, not 1"):
        ledger.write_now(lambda connection: facts.claim(connection, other))
    assert ledger.read_now(queries.facts)["chain_id"] == "31337"
    ledger.dispose()


def test_the_masters_keys_open_what_was_issued(admin: Admin) -> None:
    account = issue(admin)["account"]
    custody = Custody.load(admin.settings.master_key_file)
    ledger = admin.ledger()
    wrapped = ledger.read_now(
        lambda connection: connection.scalar(
            schema.accounts.select()
            .with_only_columns(schema.accounts.c.wrapped_key)
            .where(schema.accounts.c.address == account)
        )
    )
    ledger.dispose()
    assert wrapped is not None
    assert custody.unwrap(account, wrapped)


def test_the_installed_program_says_what_to_do_in_one_line(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-c", "from taprail_common.cli import main; main()"]
        return subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)

    missing = run("admin", "--config", str(tmp_path / "none.toml"), "user", "list")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr.startswith("error: no configuration at")
    assert len(missing.stderr.strip().splitlines()) == 1
    admin = Admin(tmp_path)
    unmade = run("gateway", "run", "--config", str(admin.config))
    assert unmade.returncode == 2
    assert "taprail admin init" in unmade.stderr
    assert len(unmade.stderr.strip().splitlines()) == 1
