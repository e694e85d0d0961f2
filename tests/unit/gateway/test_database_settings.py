"""Which database the configuration names; the password shows nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from taprail_common.errors import ConfigError, OperatorError
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger.engines import place

CHAIN = """
[chain]
chain_id = 31337
token = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
rpc_urls = ["http://127.0.0.1:8545"]
"""
SECRET = "hunter2"
SERVER = "postgresql://taprail@db.example/taprail"


def load(tmp_path: Path, gateway: str) -> GatewaySettings:
    path = tmp_path / "gateway.toml"
    path.write_text(f"[gateway]\n{gateway}\n{CHAIN}")
    return GatewaySettings.load(path)


def test_without_a_word_it_is_a_file_in_the_state_folder(tmp_path: Path) -> None:
    url = load(tmp_path, "").database_url
    assert url.database == str(tmp_path / "state" / "ledger.db")
    assert place(url) == url.database


def test_a_server_is_named_by_its_url(tmp_path: Path) -> None:
    url = load(tmp_path, f'database_url = "{SERVER}?sslmode=verify-full"').database_url
    assert (url.host, url.database, url.password) == ("db.example", "taprail", None)
    assert place(url) == f"{SERVER}?sslmode=verify-full"


def test_the_environment_may_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPRAIL_SET_GATEWAY__DATABASE_URL", SERVER)
    assert load(tmp_path, "").database_url.host == "db.example"


def test_a_password_is_known_to_the_driver_alone(tmp_path: Path) -> None:
    settings = load(tmp_path, f'database_url = "postgresql://taprail:{SECRET}@h/taprail"')
    url = settings.database_url
    assert url.password == SECRET
    for text in (repr(settings), str(settings), repr(url), str(url), place(url)):
        assert SECRET not in text


def test_a_password_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    settings = load(tmp_path, f'database_url = "{SERVER}"\ndatabase_password_file = "password"')
    with pytest.raises(OperatorError, match="is missing"):
        settings.database_url  # noqa: B018 - it is read now
    with pytest.raises(ConfigError, match="database_password_file: there is no"):
        settings.check()
    file.write_text(SECRET + "\n")
    file.chmod(0o644)
    with pytest.raises(OperatorError, match="chmod 600"):
        settings.database_url  # noqa: B018
    file.chmod(0o600)
    assert settings.database_url.password == SECRET


@pytest.mark.parametrize(
    ("gateway", "complaint"),
    [
        (f'database = "x.db"\ndatabase_url = "{SERVER}"', "not both"),
        ('database_password_file = "f"', "of no use"),
        (
            f'database_url = "postgresql://u:{SECRET}@h/d"\ndatabase_password_file = "f"',
            "in database_url and in database_password_file",
        ),
        (f'database_url = "postgresql://u:{SECRET}@h"', "names no database"),
        (f'database_url = "postgresql://u@h:{SECRET}/d"', "malformed"),
        (f'database_url = "{SECRET}"', "malformed"),
        (f'database_url = "postgresql://u@h/d?password={SECRET}"', "may not set password"),
        (f'database_url = "{SERVER}?autocommit={SECRET}"', "may not set autocommit"),
        (f'database_url = "mysql://u:{SECRET}@h/d"', "no ledger on mysql"),
        (f'database_url = "postgresql+psycopg2://u:{SECRET}@h/d"', "driver postgresql.psycopg2"),
        ('database_url = "sqlite:////var/lib/x.db"', "name a file as `database`"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_the_password(
    tmp_path: Path, gateway: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        load(tmp_path, gateway)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
