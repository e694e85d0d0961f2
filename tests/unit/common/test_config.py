"""Configuration: file, environment, flags, in that order; all problems at once."""

from pathlib import Path

import pytest
from pydantic import Field

from taprail_common.config import Settings, load_settings, resolve
from taprail_common.errors import ConfigError, OperatorError


class Server(Settings):
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)


class Example(Settings):
    server: Server = Server()
    name: str


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "example.toml"
    path.write_text(text)
    return path


def test_flag_over_environment_over_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "file"\n[server]\nport = 1\nhost = "a"\n')
    environment = {"TAPRAIL_SET_SERVER__PORT": "2", "TAPRAIL_SET_NAME": "env", "OTHER": "x"}
    flags = {"server.port": 3, "server.host": None}
    settings = load_settings(Example, path, environment=environment, flags=flags)
    assert settings == Example(name="env", server=Server(host="a", port=3))


def test_all_problems_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "[server]\nport = 70000\nhots = 1\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(Example, path, environment={})
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "server.port" in text
    assert "server.hots is unknown, perhaps host is meant" in text
    assert "name: Field required" in text


def test_no_file_and_no_toml(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="name one with --config"):
        load_settings(Example, tmp_path / "none.toml", environment={})
    with pytest.raises(ConfigError, match="is not TOML"):
        load_settings(Example, write(tmp_path, "= ["), environment={})


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    config = tmp_path / "conf" / "x.toml"
    assert resolve(config, Path("ledger.db")) == (tmp_path / "conf" / "ledger.db").resolve()
    assert resolve(config, Path("/var/ledger.db")) == Path("/var/ledger.db")


def test_a_credential_is_the_file_that_systemd_has_handed_over(tmp_path: Path) -> None:
    (tmp_path / "taprail.master.key").write_text("k")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    named = Path("credential:taprail.master.key")
    config = Path("/etc/taprail/gateway.toml")
    assert resolve(config, named, environment=environment) == tmp_path / "taprail.master.key"


@pytest.mark.parametrize(
    ("name", "has_folder", "says"),
    [
        ("taprail.master.key", False, "handed over none: run this as a unit that has LoadCred"),
        ("taprail.master.key", True, "put it at /etc/credstore/taprail.master.key"),
        ("../device.key", True, "cannot be a credential's name"),
        ("", True, "cannot be a credential's name"),
    ],
)
def test_a_credential_that_is_not_there_says_what_to_do(
    tmp_path: Path, name: str, has_folder: bool, says: str
) -> None:
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)} if has_folder else {}
    with pytest.raises(OperatorError, match=says):
        resolve(tmp_path / "x.toml", Path(f"credential:{name}"), environment=environment)
