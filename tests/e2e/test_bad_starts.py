"""What cannot be started says so: one line on stderr with what to do, exit code 2, no traceback."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from taprail_common.signing import create_key_file
from taprail_hwsim.anvil import AnvilOptions
from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.pn532 import Pn532Simulator
from tests.e2e.programs import refusal, run_warm, says

pytestmark = pytest.mark.e2e

NOBODY = "http://127.0.0.1:1"


@dataclass
class GatewayFolder:
    """A folder from which a gateway would start, until a test spoils it."""

    path: Path
    chain: DevChain
    gateway: dict[str, object] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.path / "gateway.toml"

    @property
    def state(self) -> Path:
        return self.path / "state"

    def refusal(self, *, exit_code: int = 2) -> str:
        """Start it; the line that it says."""
        gateway = {"port": 0, **self.gateway}
        chain = {
            "rpc_urls": [self.chain.rpc_url],
            "chain_id": self.chain.chain_id,
            "token": self.chain.token_address,
            **self.settings,
        }
        tables = {"gateway": gateway, "chain": chain}
        # A JSON value of these kinds is a TOML value as well.
        self.config.write_text(
            "".join(
                f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items())
                for name, table in tables.items()
            )
        )
        return refuse_gateway(self.config, exit_code)


def refuse_gateway(config: Path, exit_code: int = 2) -> str:
    """Run a gateway that must refuse to start."""
    return refusal("taprail", "gateway", "run", "--config", str(config), exit_code=exit_code)


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State that `taprail admin init` has made: keys, an empty ledger, a wallet."""
    folder = tmp_path_factory.mktemp("initialised")
    config = folder / "gateway.toml"
    config.write_text(f'[chain]\nrpc_urls = ["{NOBODY}"]\nchain_id = 1\ntoken = "0x{"11" * 20}"\n')
    done = run_warm("taprail", "admin", "--config", str(config), "init")
    assert done.returncode == 0, done.stderr
    return folder / "state"


@pytest.fixture
def folder(tmp_path: Path, initialised: Path, chain: DevChain) -> GatewayFolder:
    """A gateway's folder of this test's own, on the shared node."""
    shutil.copytree(initialised, tmp_path / "state")
    return GatewayFolder(tmp_path, chain)


@pytest.fixture
def terminal_config(tmp_path: Path) -> Path:
    """A terminal's configuration with a key and without a reader."""
    create_key_file(tmp_path / "state" / "device.key")
    config = tmp_path / "terminal.toml"
    config.write_text(
        f"""\
[terminal]
id = "till-1"
merchant_id = "cafe"
currency = "DUSD"
decimals = 6
state_dir = "state"
gateway_url = "{NOBODY}"
gateway_public_key = "{"11" * 32}"
[reader]
port = "/dev/there-is-no-reader"
[lights]
driver = "none"
[display]
driver = "none"
"""
    )
    return config


# --- the gateway's files ------------------------------------------------------------------------


def test_no_configuration(tmp_path: Path) -> None:
    line = refuse_gateway(tmp_path / "nowhere.toml")
    assert says(line, [str(tmp_path / "nowhere.toml"), "--config"])


def test_broken_toml(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("[gateway\nport = 1\n")
    assert says(refuse_gateway(config), [str(config), "not TOML", "line 1"])


def test_every_problem_of_a_configuration_at_once(folder: GatewayFolder) -> None:
    folder.gateway = {"prot": 8080, "block_interval_ms": 1}
    folder.settings = {"token": "not an address", "chain_id": "one"}
    wanted = [
        "gateway.prot is unknown, perhaps port is meant",
        "gateway.block_interval_ms",
        "chain.token",
        "chain.chain_id",
    ]
    assert says(folder.refusal(), wanted)


KEY_FILES = ("gateway.key", "master.key", "jwt.secret")


@pytest.mark.parametrize("name", KEY_FILES)
def test_a_missing_key_file(folder: GatewayFolder, name: str) -> None:
    key = folder.state / name
    key.unlink()
    assert says(folder.refusal(), [f"there is no {key}", "taprail admin init", "restore"])


@pytest.mark.parametrize(("name", "mode"), zip(KEY_FILES, [0o644, 0o640, 0o602], strict=True))
def test_a_key_file_that_others_may_read(folder: GatewayFolder, name: str, mode: int) -> None:
    key = folder.state / name
    key.chmod(mode)
    assert says(folder.refusal(), ["may be read by others", f"chmod 600 {key}"])


def test_all_that_is_wrong_with_key_files_at_once(folder: GatewayFolder) -> None:
    missing, *open_ones = (folder.state / name for name in KEY_FILES)
    missing.unlink()
    for key in open_ones:
        key.chmod(0o644)
    wanted = [f"there is no {missing}", *(f"chmod 600 {key}" for key in open_ones)]
    assert says(folder.refusal(), wanted)


def test_a_database_password_that_others_may_read(folder: GatewayFolder) -> None:
    password = folder.path / "password"
    password.write_text("a secret word")
    folder.gateway = {
        "database_url": "postgresql://tap@/tap?host=/nowhere",
        "database_password_file": str(password),
    }
    password.chmod(0o644)
    line = folder.refusal()
    assert says(line, ["gateway.database_password_file", f"chmod 600 {password}"])
    assert "a secret word" not in line
    password.unlink()
    assert says(folder.refusal(), [f"there is no {password}"])


@pytest.mark.parametrize(
    ("name", "content"), [("gateway.key", b"not a key\n"), ("master.key", b"\xff\x00" * 32)]
)
def test_a_damaged_key_file(folder: GatewayFolder, name: str, content: bytes) -> None:
    key = folder.state / name
    key.write_bytes(content)
    line = folder.refusal()
    assert says(line, [str(key), "damaged", "backup"])
    assert "not a key" not in line


def test_a_folder_in_the_place_of_a_key_file(folder: GatewayFolder) -> None:
    key = folder.state / "master.key"
    key.unlink()
    key.mkdir()
    assert says(folder.refusal(), [f"{key} is no regular file", "name the file itself"])


def test_a_key_file_by_a_link_is_judged_by_what_it_points_to(folder: GatewayFolder) -> None:
    key, elsewhere = folder.state / "master.key", folder.path / "elsewhere.key"
    key.rename(elsewhere)
    key.symlink_to(elsewhere)
    elsewhere.chmod(0o644)
    assert says(folder.refusal(), ["may be read by others", f"chmod 600 {key}"])
    elsewhere.unlink()
    assert says(folder.refusal(), [f"there is no {key}", "restore"])


def test_another_ledgers_master_key(folder: GatewayFolder) -> None:
    key = folder.state / "master.key"
    key.write_text("ab" * 32)
    line = folder.refusal()
    assert says(
        line, ["is by another master key", "use the master key file that belongs to this ledger"]
    )


def test_a_jwt_secret_that_is_too_short(folder: GatewayFolder) -> None:
    (folder.state / "jwt.secret").write_text("short")
    assert says(folder.refusal(), ["shorter than 32 characters", "openssl rand -hex 32"])


def test_a_database_of_a_newer_version(folder: GatewayFolder) -> None:
    with closing(sqlite3.connect(folder.state / "ledger.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    assert says(folder.refusal(), ["9999", "newer", "upgrade"])


# --- the gateway's surroundings -----------------------------------------------------------------


def test_a_port_in_use(folder: GatewayFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        folder.gateway = {"port": taken.getsockname()[1]}
        line = folder.refusal()
    assert says(line, [str(folder.gateway["port"]), "in use", "gateway.port"])


def test_no_node(folder: GatewayFolder) -> None:
    folder.settings = {"rpc_urls": [NOBODY]}
    assert says(folder.refusal(), ["127.0.0.1:1", "start a node", "rpc_urls"])


def test_a_node_of_another_chain(folder: GatewayFolder) -> None:
    with DevChain(AnvilOptions(chain_id=999)) as other:
        folder.settings = {"rpc_urls": [other.rpc_url], "chain_id": 31337}
        line = folder.refusal()
    assert says(line, ["999", "31337", "check rpc_urls and chain_id"])


def test_a_token_address_with_no_code(folder: GatewayFolder) -> None:
    folder.settings = {"token": "0x" + "ab" * 20}
    assert says(folder.refusal(), ["no contract at the token address 0x" + "ab" * 20])


def test_a_contract_that_is_no_token(folder: GatewayFolder) -> None:
    folder.settings = {"token": folder.chain.multicall_address}
    assert says(folder.refusal().lower(), [folder.chain.multicall_address.lower(), "no eip-3009"])


def test_a_token_whose_domain_separator_does_not_match(folder: GatewayFolder) -> None:
    _let_version_lie(folder.chain)
    line = folder.refusal()
    assert says(line, [folder.chain.token_address, "DOMAIN_SEPARATOR()", "cannot be used"])


def _let_version_lie(chain: DevChain) -> None:
    """Let the token's version() say "2" while its domain keeps the "1" that it was made with.

    `version` is DevToken's third variable, so it lies in slot 2; Solidity keeps a text of up to 31
    bytes in its slot, left-aligned, with twice its length in the last byte.
    """
    said = b"2".ljust(31, b"\0") + bytes([2])
    chain.node.call("anvil_setStorageAt", chain.token_address, hex(2), "0x" + said.hex())
    chain.mine()


# --- the terminal -------------------------------------------------------------------------------


def refuse_terminal(config: Path) -> str:
    """Run a terminal that must refuse to start."""
    return refusal("taprail", "terminal", "run", "--config", str(config))


def test_a_reader_path_that_does_not_exist(terminal_config: Path) -> None:
    line = refuse_terminal(terminal_config)
    assert says(line, ["/dev/there-is-no-reader", "plug it in", "[reader] port"])


def test_a_reader_driver_that_nobody_knows(terminal_config: Path) -> None:
    _replace(terminal_config, "[reader]", '[reader]\ndriver = "magic"')
    assert says(refuse_terminal(terminal_config), ["'magic'", "pn532"])


def test_a_terminal_without_its_key(terminal_config: Path) -> None:
    with Pn532Simulator() as reader:
        _replace(terminal_config, "/dev/there-is-no-reader", reader.path)
        key = terminal_config.parent / "state" / "device.key"
        key.unlink()
        line = refuse_terminal(terminal_config)
    assert says(line, [str(key), "taprail terminal init"])


def test_a_terminals_key_that_others_may_read(terminal_config: Path) -> None:
    with Pn532Simulator() as reader:
        _replace(terminal_config, "/dev/there-is-no-reader", reader.path)
        key = terminal_config.parent / "state" / "device.key"
        key.chmod(0o640)
        line = refuse_terminal(terminal_config)
    assert says(line, [f"chmod 600 {key}"])


def test_an_outbox_of_a_newer_version(terminal_config: Path) -> None:
    with closing(sqlite3.connect(terminal_config.parent / "state" / "outbox.db")) as database:
        database.execute("PRAGMA user_version = 99")
    with Pn532Simulator() as reader:
        _replace(terminal_config, "/dev/there-is-no-reader", reader.path)
        line = refuse_terminal(terminal_config)
    assert says(line, ["outbox", "newer"])


def test_every_problem_of_a_terminals_configuration_at_once(terminal_config: Path) -> None:
    _replace(terminal_config, 'id = "till-1"', 'id = "till 1"\namount = "2.50"')
    _replace(terminal_config, "decimals = 6", "decimals = 60")
    assert says(
        refuse_terminal(terminal_config),
        ["terminal.id", "terminal.amount is unknown", "terminal.decimals"],
    )


# --- commands -----------------------------------------------------------------------------------


def test_a_command_that_nobody_knows() -> None:
    assert says(refusal("taprail", "gatway"), ["gatway", "gateway, admin, terminal, diag"])


def test_a_serial_port_that_does_not_exist() -> None:
    assert says(
        refusal("taprail", "diag", "--port", "/dev/there-is-no-line", "status"),
        ["/dev/there-is-no-line", "ports found here"],
    )


def test_a_tap_where_nothing_runs(tmp_path: Path) -> None:
    line = refusal("taprail-sim", "tap", "alice", "--state-dir", str(tmp_path))
    assert says(line, [str(tmp_path), f"taprail-sim up --state-dir {tmp_path}"])


def test_a_simulator_on_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refusal("taprail-sim", "up", "--state-dir", str(tmp_path), "--port", port)
    assert says(line, [port, "in use"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--token", "0x" + "00" * 20], ["--rpc-url"]),
        (["--rpc-url", "localhost", "--token", "0x" + "00" * 20], ["localhost", "http://"]),
        (["--rpc-url", "http://127.0.0.1:1", "--token", "0x" + "00" * 20], ["start the node"]),
        (["--state-dir", "/dev/null"], ["/dev/null", "another folder"]),
        (["--state-dir", "{folder}/" + "x" * 90], ["too long for a socket"]),
    ],
)
def test_a_simulator_with_options_that_do_not_hold(
    tmp_path: Path, options: list[str], words: list[str]
) -> None:
    given = [option.format(folder=tmp_path) for option in options]
    assert says(refusal("taprail-sim", "up", "--state-dir", str(tmp_path), *given), words)


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_first_start_that_was_killed_half_way(tmp_path: Path) -> None:
    key = tmp_path / "terminal" / "device.key"
    key.parent.mkdir()
    key.write_text("whatever the killed start had made")
    line = refusal("taprail-sim", "up", "--state-dir", str(tmp_path))
    assert says(line, [f"{tmp_path} is half made", "remove it"])
    assert key.exists()
