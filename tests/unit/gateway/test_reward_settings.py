"""The rewards' configuration: off by default, exact when on, refused with the range."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from taprail_common.errors import ConfigError, OperatorError
from taprail_gateway.callbacks.handlers import make_handlers
from taprail_gateway.config import GatewaySettings

CONTRACT = "0x" + "Cd" * 20
CONFIG = f"""
[chain]
rpc_urls = ["http://127.0.0.1:9"]
chain_id = 31337
token = "{CONTRACT}"
"""


def load(tmp_path: Path, rewards: str = "") -> GatewaySettings:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG + rewards)
    return GatewaySettings.load(path)


def on(rate: str) -> str:
    return f'[rewards]\ncontract = "{CONTRACT}"\nrate = {rate}\n'


def test_off_unless_a_contract_is_named(tmp_path: Path) -> None:
    assert load(tmp_path).rewards.contract is None


@pytest.mark.parametrize(
    ("rate", "meant"),
    [('"1/100"', Fraction(1, 100)), ('"0.01"', Fraction(1, 100)), ('"2"', Fraction(2))],
)
def test_a_rate_is_exact(tmp_path: Path, rate: str, meant: Fraction) -> None:
    assert load(tmp_path, on(rate)).rewards.fraction == meant


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        ('"0"', "over 0 and at most 1000"),
        ('"1001"', "over 0 and at most 1000"),
        ('"1/0"', "divides by zero"),
        ('"-1"', "pattern"),
        ('"1e9"', "pattern"),
        ("0.01", "valid string"),
    ],
)
def test_what_is_no_rate_is_refused(tmp_path: Path, rate: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, on(rate))


def test_a_contract_wants_a_rate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="over 0"):
        load(tmp_path, f'[rewards]\ncontract = "{CONTRACT}"\n')


def test_a_handler_is_named_or_refused(tmp_path: Path) -> None:
    settings = load(tmp_path, on('"1"'))
    assert list(make_handlers(["reward"], settings)) == ["reward"]
    with pytest.raises(OperatorError, match="no handler for 'fax'"):
        make_handlers(["fax"], settings)
