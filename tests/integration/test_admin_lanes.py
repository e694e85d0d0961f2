"""`taprail admin lane add` on a real ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taprail_gateway.admin import app
from taprail_gateway.admin.lanes import what_to_do
from taprail_gateway.ledger.queue_report import LaneReport
from taprail_gateway.settle.lanes import PauseCause

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
    assert "reward grant" in said
    assert "reward grant" not in run(config, "lane", "add")


@pytest.mark.parametrize("cause", list(PauseCause))
def test_every_pause_says_what_ends_it(cause: PauseCause) -> None:
    cure = what_to_do(paused(f"{cause}: the node's own words"))
    assert cure is not None
    assert "lane resume" not in cure, "it resumes by itself"


@pytest.mark.parametrize("because", ["operator: moved", "what an older program wrote"])
def test_a_pause_that_no_loop_lifts_is_lifted_by_hand(because: str) -> None:
    assert what_to_do(paused(because)) == "taprail admin lane resume 0xab"


def test_a_paused_lane_says_why_and_what_to_do(config: Path) -> None:
    [lane] = json.loads(run(config, "lane", "list", "--json"))
    run(config, "lane", "pause", lane["address"], "--reason", "its [key] moves")
    for command in (("lane", "list"), ("queue", "status")):
        said = run(config, *command)
        assert "operator: its [key] moves" in said
        assert f"To do: taprail admin lane resume {lane['address']}." in said
    run(config, "lane", "resume", lane["address"])
    assert "To do" not in run(config, "lane", "list")


def paused(because: str) -> LaneReport:
    return LaneReport("0xab", "payments", 1, 0, None, 0, 0, because, None, None)
