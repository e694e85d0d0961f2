"""A configuration leaves the terminal without its passwords, and comes back with them."""

from __future__ import annotations

import tomllib

import pytest

from taprail_common.errors import InputError
from taprail_terminal.console.config_text import as_imported, for_export
from taprail_terminal.console.settings import as_told

TEXT = """\
# Wi-Fi of the shop: password is hunter2, the name is Cafe
[terminal]
id = "till-1"  # token: s3same
gateway_url = "https://till:geh%23eim@gateway.example/?token=abc"
note = "a # in quotes \\" pass: stays" # psk=wpa2wpa2
plain = 'single # quotes \\'
"""
SECRETS = ("hunter2", "s3same", "geh", "abc", "wpa2wpa2")


def test_no_password_leaves_and_all_else_stays() -> None:
    shown = for_export(TEXT)
    for secret in SECRETS:
        assert secret not in shown
    assert "pass: stays" in shown
    assert "# Wi-Fi of the shop: password [hidden]" in shown
    read = tomllib.loads(shown)["terminal"]
    assert read == {**tomllib.loads(TEXT)["terminal"], "gateway_url": "https://gateway.example/"}


def test_an_escape_hides_no_password() -> None:
    text = '[terminal]\ngateway_url = "https\\u003A//till:geheim@gateway.example"\n'
    assert "geheim" not in for_export(text)


def test_what_cannot_be_shown_without_it_is_not_shown() -> None:
    text = 'terminal = { gateway_url = "https://till:geheim@gateway.example" }\n'
    with pytest.raises(InputError, match="cannot be edited"):
        for_export(text)
    text = 'note = """\n# password: geheim\n"""\n'
    with pytest.raises(InputError, match="cannot be shown"):
        for_export(text)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("/dev/ttyUSB1", "/dev/ttyUSB1"),
        ("https://till:geheim@gateway.example:8443", "https://gateway.example:8443"),
        ('"https://till:ge/he@im@gateway.example"', '"https://gateway.example"'),
        ("https://gateway.example/?token=geheim", "https://gateway.example/"),
    ],
)
def test_a_change_is_written_down_without_a_password(word: str, told: str) -> None:
    assert as_told(["config", "set", "key", word]) == f"config set key {told}"


def test_a_file_is_written_down_as_its_digest() -> None:
    told = as_told(["config", "import", TEXT])
    assert told.startswith("config import (")
    assert not any(secret in told for secret in SECRETS)


def test_an_export_comes_back_with_the_password_of_the_same_address() -> None:
    back = as_imported(TEXT, for_export(TEXT))
    assert tomllib.loads(back) == tomllib.loads(TEXT)
    elsewhere = for_export(TEXT).replace("gateway.example", "other.example")
    assert as_imported(TEXT, elsewhere) == elsewhere
    assert as_imported(TEXT, "no toml") == "no toml"
    assert as_imported(TEXT, "terminal = 1") == "terminal = 1"
