"""`taprail admin` in this process, on a real ledger: as `init` and a first start leave it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection
from typer.testing import CliRunner

from taprail_common.clock import SystemClock
from taprail_common.errors import TapRailError
from taprail_common.signing import fingerprint, load_key_file
from taprail_gateway import facts
from taprail_gateway.admin import app
from taprail_gateway.config import GatewaySettings
from taprail_gateway.facts import LedgerFacts
from taprail_gateway.ledger.database import Ledger

T = TypeVar("T")

TOKEN = "0x" + "ab" * 20
ACCOUNT = "0x" + "CA" * 20
# Nothing listens here: a command that needs the chain fails instead of passing by accident.
CONFIG = f"""
[gateway]
port = 0
[chain]
rpc_urls = ["http://127.0.0.1:9"]
chain_id = 31337
token = "{TOKEN}"
"""


class Admin:
    """`taprail admin` on a configuration of its own, in this process."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "gateway.toml"
        self.config.write_text(CONFIG)
        self.settings = GatewaySettings.load(self.config)

    def __call__(self, *arguments: str) -> str:
        result = CliRunner().invoke(app, ["--config", str(self.config), *arguments])
        if isinstance(result.exception, TapRailError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def ledger(self) -> Ledger:
        return Ledger.open(self.settings.database_url, clock=SystemClock())

    def do(self, work: Callable[[Connection], T]) -> T:
        """Write to the ledger behind the commands' back."""
        ledger = self.ledger()
        try:
            return ledger.write_now(work)
        finally:
            ledger.dispose()

    def claim(self) -> None:
        """Do what a gateway's first start does: note the chain and the token in the ledger."""
        key = load_key_file(self.settings.key_file, "gateway key").verify_key
        wanted = LedgerFacts(31337, TOKEN, "TUSD", 6, fingerprint(key))
        ledger = self.ledger()
        ledger.write_now(lambda connection: facts.claim(connection, wanted))
        ledger.dispose()


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a gateway with a user and a merchant, to be copied."""
    admin = Admin(tmp_path_factory.mktemp("furnished"))
    admin("init")
    admin.claim()
    admin("user", "add", "alice")
    admin("merchant", "add", "kiosk", "--account", ACCOUNT)
    return admin.settings.gateway.state_dir


@pytest.fixture
def admin(tmp_path: Path, furnished: Path) -> Admin:
    admin = Admin(tmp_path)
    shutil.copytree(furnished, admin.settings.gateway.state_dir)
    return admin
