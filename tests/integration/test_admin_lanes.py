"""`taprail admin lane add` on a real ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taprail_gateway.admin import app

CONFIG = """
[chain]
rpc_urls = ["http://127.0.0.1:9"]
chain_id = 31337
token = "0xabababababababababababababababababababab"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG)
    run(path, "init")
    return path


def run(config: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["--config", str(config), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_wallet_is_made_for_its_purpose(config: Path) -> None:
    made = json.loads(run(config, "lane", "add", "--purpose", "rewards", "--json"))
    also = json.loads(run(config, "lane", "add", "--json"))
    assert [made["purpose"], also["purpose"]] == ["rewards", "payments"]
    listed = json.loads(run(config, "lane", "list", "--json"))
    purposes = {row["address"]: row["purpose"] for row in listed}
    assert purposes[made["address"]] == "rewards"
    assert sorted(purposes.values()) == ["payments", "payments", "rewards"]


def test_it_says_what_a_rewards_wallet_needs(config: Path) -> None:
    said = run(config, "lane", "add", "--purpose", "rewards")
    assert "setMinter" in said
    assert "setMinter" not in run(config, "lane", "add")
