"""The terminal's configuration: checked as a whole, every problem with its key."""

from __future__ import annotations

from pathlib import Path

import pytest
from nacl.signing import SigningKey

from taprail_common.errors import ConfigError, OperatorError
from taprail_common.signing import public_key_text
from taprail_terminal.config import load_config

KEY = public_key_text(SigningKey(bytes(32)).verify_key)
GOOD = f"""
[terminal]
id = "t1"
merchant_id = "cafe"
currency = "USDC"
decimals = 6
state_dir = "state"
gateway_url = "http://127.0.0.1:8080/"
gateway_public_key = "{KEY}"
mode = "fixed"
fixed_amount = "2.50"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "terminal.toml"
    path.write_text(text)
    return path


def test_a_good_file_is_read_with_its_paths_beside_it(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, GOOD))
    assert config.fixed_units == 2_500_000
    assert config.outbox_file == tmp_path / "state" / "outbox.db"
    assert config.key_file.parent == tmp_path / "state"
    assert config.terminal.gateway_url == "http://127.0.0.1:8080"


def test_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, GOOD), flags={"reader.port": "/dev/ttyUSB7"})
    assert config.reader.port == "/dev/ttyUSB7"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('id = "t1"', 'id = "t 1"', "terminal.id"),
        ("decimals = 6", "decimals = 18", "terminal.decimals"),
        ('"http://127.0.0.1:8080/"', '"127.0.0.1:8080"', "gateway_url"),
        (KEY, "12ab", "gateway_public_key"),
        ('fixed_amount = "2.50"', "", "fixed_amount"),
        ('mode = "fixed"', 'mode = "till"', "fixed_amount"),
        ('"2.50"', '"0"', "fixed_amount"),
        ('"2.50"', '"2.5000001"', "fixed_amount"),
        ('mode = "fixed"', 'mode = "fixed"\nfixed_amout = "1"', "fixed_amount is meant"),
        ("[terminal]", "[lights]\npins = [1, 2]\n[terminal]", "lights.pins"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(written(tmp_path, GOOD.replace(old, new)))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('id = "t1"', 'id = ""').replace("decimals = 6", "decimals = 99")
    with pytest.raises(ConfigError) as refusal:
        load_config(written(tmp_path, text))
    assert len(refusal.value.problems) == 2


def test_a_state_folder_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace('"state"', f'"{"deep/" * 30}"')
    with pytest.raises(OperatorError, match="state_dir"):
        load_config(written(tmp_path, text))
