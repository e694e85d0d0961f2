"""`taprail admin alert` on a real ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select
from typer.testing import CliRunner

from taprail_common.clock import SystemClock
from taprail_common.errors import OperatorError, TapRailError
from taprail_gateway.admin import app
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import alerts, schema
from taprail_gateway.ledger.database import Ledger

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
    ledger = open_ledger(path)
    ledger.write_now(raise_two)
    ledger.dispose()
    return path


def raise_two(connection: Connection) -> None:
    for subject, review in (("lane one", False), ("payment two", True)):
        alerts.raise_alert(connection, "kind", subject, "error", "why", 1, review)


def open_ledger(config: Path) -> Ledger:
    return Ledger.open(GatewaySettings.load(config).database_url, clock=SystemClock())


def run(config: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["--config", str(config), *arguments])
    if isinstance(result.exception, TapRailError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def listed(config: Path, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(config, "alert", "list", "--json", *arguments))
    return found


def test_open_alerts_are_listed(config: Path) -> None:
    assert [(row["subject"], row["needs_review"]) for row in listed(config)] == [
        ("lane one", False),
        ("payment two", True),
    ]
    assert [row["subject"] for row in listed(config, "--review")] == ["payment two"]
    table = run(config, "alert", "list")
    assert "payment two" in table
    assert "error (review)" in table
    assert "1970-01-01T00:00:00.001Z" in table


def test_what_was_looked_into_is_cleared_with_who_and_why(config: Path) -> None:
    number = listed(config, "--review")[0]["id"]
    said = json.loads(run(config, "alert", "clear", str(number), "--reason", "paid", "--json"))
    assert said["id"] == number
    assert [row["subject"] for row in listed(config)] == ["lane one"]
    ledger = open_ledger(config)
    row = ledger.read_now(lambda c: c.execute(select(schema.operator_actions)).one())
    ledger.dispose()
    assert (row.action, row.subject, row.reason) == ("clear-alert", str(number), "paid")
    assert row.actor == said["clearedBy"]
    with pytest.raises(OperatorError, match=f"no alert {number} is open"):
        run(config, "alert", "clear", str(number))


def test_none_is_said(config: Path) -> None:
    for row in listed(config):
        run(config, "alert", "clear", str(row["id"]))
    assert "No alert is open." in run(config, "alert", "list")


@pytest.mark.parametrize("number", ["0", "-1", "x", "9" * 30])
def test_a_number_that_no_alert_can_have_is_refused(config: Path, number: str) -> None:
    result = CliRunner().invoke(app, ["--config", str(config), "alert", "clear", number])
    assert result.exit_code == 2
    assert len(listed(config)) == 2


def test_a_text_is_shown_as_it_is_whatever_brackets_are_in_it(config: Path) -> None:
    text = "the node says [/] [red]execution reverted[/red] [0x12]"
    ledger = open_ledger(config)
    ledger.write_now(lambda c: alerts.raise_alert(c, "kind", "odd", "error", text, 2))
    ledger.dispose()
    assert text in run(config, "alert", "list")
