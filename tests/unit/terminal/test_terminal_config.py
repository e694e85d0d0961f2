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


TEN_MISTAKES = f"""
[terminal]
id = "till 1"
merchant_id = "cafe"
currency = "usdc"
decimals = 18
state_dir = "{"/deep" * 30}"
gateway_url = "gateway.example"
gateway_public_key = "12ab"
mode = "till"
fixed_amount = "2.50"

[reader]
driver = "pn523"

[lights]
pins = [5, 5, 13, 19, 26, 16]

[display]
languge = "vi"
"""


def test_ten_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        load_config(written(tmp_path, TEN_MISTAKES))
    told = sorted(problem.split(":")[0].split(" ")[0] for problem in refusal.value.problems)
    assert told == [
        "display.languge",
        "lights.buzzer_pin",
        "reader.driver",
        "terminal.currency",
        "terminal.decimals",
        "terminal.fixed_amount",
        "terminal.gateway_public_key",
        "terminal.gateway_url",
        "terminal.id",
        "terminal.state_dir",
    ]
    assert all(problem in str(refusal.value) for problem in refusal.value.problems)
    assert "perhaps language is meant" in str(refusal.value)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ('[reader]\ndriver = "acr122u"', "reader.driver: .*pn532"),
        ('[lights]\ndriver = "leds"', "lights.driver: .*gpio, none"),
        ('[display]\ndriver = "lcd"', "display.driver: .*none, ssd1306-i2c"),
        ('[display]\nlanguage = "de"', "display.language"),
        ('[log]\nlevel = "loud"', "log.level"),
        ("[lights]\nbuzzer_pin = 5", "lights.buzzer_pin: .*two parts share a pin: 5"),
    ],
)
def test_what_nobody_knows_is_refused_before_anything_starts(
    tmp_path: Path, table: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(written(tmp_path, f"{GOOD}\n{table}"))


def test_amounts_are_typed_only_where_there_is_a_keypad(tmp_path: Path) -> None:
    text = GOOD.replace('mode = "fixed"\nfixed_amount = "2.50"', 'mode = "keypad"')
    with pytest.raises(ConfigError, match=r"keypad: .*needs a device"):
        load_config(written(tmp_path, text))
    config = load_config(written(tmp_path, f'{text}\n[keypad]\ndevice = "/dev/input/event0"'))
    assert config.keypad.device == Path("/dev/input/event0")


def test_a_state_folder_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace('"state"', f'"{"deep/" * 30}"')
    with pytest.raises(OperatorError, match="state_dir"):
        load_config(written(tmp_path, text))
