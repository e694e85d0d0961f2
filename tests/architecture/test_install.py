"""What `make install` puts onto a machine: whole, readable by systemd, and taken off again."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from taprail_common.signing import public_key_text
from taprail_gateway.config import GatewaySettings
from taprail_terminal.config import DisplayTable, LightsTable, ReaderTable, load_config

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = ROOT / "systemd"
UNITS = ("taprail-gateway.service", "taprail-terminal.service")
UNIT_FOLDER = Path("usr/local/lib/systemd/system")


def make(target: str, root: Path, **variables: str) -> str:
    options = [f"{name}={value}" for name, value in {"DESTDIR": str(root), **variables}.items()]
    done = subprocess.run(
        ["make", "--no-print-directory", target, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "MAKEFLAGS"},
    )
    return done.stderr


def program(root: Path, prefix: str = "opt/taprail") -> None:
    """Stands for the virtual environment, which takes a minute to make."""
    folder = root / prefix
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    taprail = folder / "bin" / "taprail"
    taprail.write_text("#!/bin/sh\n")
    taprail.chmod(0o755)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("root"))


def installed(folder: Path) -> Path:
    program(folder)
    make("install-files", folder)
    return folder


def run(root: Path, tool: str, *options: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"no {tool} here")
    return subprocess.run([found, *options], capture_output=True, text=True, check=False)


def test_systemd_finds_no_fault_with_the_installed_units(root: Path) -> None:
    # What the units are ordered after belongs to the machine, and this root has nothing but ours.
    for unit in ("network.target", "network-online.target", "time-sync.target", "pcscd.socket"):
        (root / UNIT_FOLDER / unit).write_text("[Unit]\nDescription=of the machine\n")
    for unit in ("sysinit.target", "basic.target", "shutdown.target", "multi-user.target"):
        (root / UNIT_FOLDER / unit).write_text("[Unit]\nDescription=of the machine\n")
    done = run(root, "systemd-analyze", "verify", "--man=no", f"--root={root}", *UNITS)
    ours = [line for line in done.stderr.splitlines() if "taprail" in line]
    assert (ours, done.returncode) == ([], 0), done.stderr


def test_users_groups_and_folders_are_made(root: Path) -> None:
    done = run(root, "systemd-sysusers", f"--root={root}")
    assert done.returncode == 0, done.stderr
    users = (root / "etc/passwd").read_text()
    groups = {line.split(":")[0] for line in (root / "etc/group").read_text().splitlines()}
    assert {"taprail-gateway", "taprail-terminal"} <= {line.split(":")[0] for line in users.split()}
    unit = (SYSTEMD / "taprail-terminal.service").read_text()
    wanted = re.search(r"^SupplementaryGroups=(.*)$", unit, re.MULTILINE)
    assert wanted is not None
    assert set(wanted[1].split()) <= groups  # a group that is not there keeps a unit from starting
    done = run(root, "systemd-tmpfiles", f"--root={root}", "--create", "taprail.conf")
    assert done.returncode == 0, done.stderr
    for name in ("var/lib/taprail-gateway", "var/lib/taprail-terminal", "etc/credstore"):
        assert (root / name).stat().st_mode & 0o777 == 0o700


def test_the_units_start_what_lies_at_the_prefix(tmp_path: Path) -> None:
    make("install-files", tmp_path, PREFIX="/srv/pay")
    for unit in UNITS:
        text = (tmp_path / UNIT_FOLDER / unit).read_text()
        assert "ExecStart=/srv/pay/bin/taprail " in text
        assert "/opt/taprail" not in text


def test_uninstalling_leaves_data_and_configuration_and_says_so(tmp_path: Path) -> None:
    root = installed(tmp_path)
    kept = {
        root / "etc/taprail/gateway.toml": "[gateway]",
        root / "etc/credstore/taprail.master.key": "k",
        root / "var/lib/taprail-gateway/ledger.db": "money",
    }
    for file, text in kept.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    said = make("uninstall", root)
    left = {file for file in root.rglob("*") if file.is_file()}
    assert left == set(kept)
    for folder in ("etc/taprail", "etc/credstore", "var/lib/taprail-gateway"):
        assert f"{root}/{folder}" in said


def test_a_mistyped_prefix_costs_nobodys_folder(tmp_path: Path) -> None:
    somebodys = tmp_path / "srv/photos/one.jpg"
    somebodys.parent.mkdir(parents=True)
    somebodys.touch()
    make("uninstall", tmp_path, PREFIX="/srv/photos")
    assert somebodys.exists()


def test_the_examples_are_configurations(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GatewaySettings.load(root / "etc/taprail/gateway.toml.example")
    assert settings.key_file == Path("/var/lib/taprail-gateway/gateway.key")
    text = (root / "etc/taprail/terminal.toml.example").read_text()
    tables = tomllib.loads(text)
    # Who it is comes from pairing; all else has to hold, and says what holds without it.
    assert LightsTable(**tables["lights"]) == LightsTable()
    assert DisplayTable(**tables["display"]) == DisplayTable()
    assert ReaderTable(**tables["reader"]) == ReaderTable()


@pytest.mark.parametrize("unit", UNITS)
def test_each_credential_that_an_example_names_is_handed_over(unit: str) -> None:
    name = unit.removeprefix("taprail-").removesuffix(".service")
    example = (SYSTEMD / "examples" / f"{name}.toml").read_text()
    named = set(re.findall(r'"credential:([^"]+)"', example))
    assert named
    given = set(re.findall(r"^LoadCredential=(\S+)$", (SYSTEMD / unit).read_text(), re.MULTILINE))
    assert named <= given


def test_both_programs_read_their_keys_from_what_is_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name in ("gateway.key", "master.key", "jwt.secret", "pin.pepper", "device.key"):
        (tmp_path / f"taprail.{name}").touch()
    gateway, terminal = (
        re.sub(r"^# (\w+ = .credential:)", r"\1", path.read_text(), flags=re.MULTILINE)
        for path in (SYSTEMD / "examples/gateway.toml", SYSTEMD / "examples/terminal.toml")
    )
    (tmp_path / "gateway.toml").write_text(gateway)
    settings = GatewaySettings.load(tmp_path / "gateway.toml")
    assert settings.key_file == tmp_path / "taprail.gateway.key"
    assert settings.master_key_file == tmp_path / "taprail.master.key"
    assert settings.jwt_secret_file == tmp_path / "taprail.jwt.secret"
    assert settings.pin_pepper_file == tmp_path / "taprail.pin.pepper"
    who = 'id = "t1"\nmerchant_id = "m"\ncurrency = "USDC"\ndecimals = 6\n'
    key = public_key_text(SigningKey.generate().verify_key)
    paired = f'[terminal]\n{who}gateway_public_key = "{key}"\n'
    (tmp_path / "terminal.toml").write_text(terminal.replace("[terminal]\n", paired))
    assert load_config(tmp_path / "terminal.toml").key_file == tmp_path / "taprail.device.key"


def test_the_terminal_may_use_the_devices_that_its_drivers_open_and_no_others() -> None:
    text = (SYSTEMD / "taprail-terminal.service").read_text()
    assert "\nDevicePolicy=closed\n" in text
    allowed = dict(re.findall(r"^DeviceAllow=(\S+) (\S+)$", text, re.MULTILINE))
    serial = {f"char-tty{kind}" for kind in ("AMA", "S", "USB", "ACM", "GS")}
    assert set(allowed) == serial | {"char-gpiochip", "char-i2c", "char-input", "char-usb_device"}
    assert set(allowed.values()) == {"rw"}


def test_the_udev_rules_are_read_without_a_fault(root: Path) -> None:
    rules = root / "usr/local/lib/udev/rules.d/70-taprail.rules"
    done = run(root, "udevadm", "verify", "--no-summary", str(rules))
    if "verify" in done.stderr and "nknown" in done.stderr:
        pytest.skip("this udev cannot check rules: it is older than 254")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_jump_of_the_udev_rules_has_its_label() -> None:
    text = (SYSTEMD / "taprail.udev.rules").read_text()
    labels = re.findall(r'LABEL="(\w+)"', text)
    assert len(labels) == len(set(labels))
    for goto in re.finditer(r'GOTO="(\w+)"', text):
        label = text.find(f'LABEL="{goto[1]}"')
        assert label > goto.start()  # udev jumps forward only


def test_the_picture_of_the_wiring_shows_the_defaults() -> None:
    drawn = runpy.run_path(str(ROOT / "docs/draw_wiring.py"))
    assert drawn["SVG"].read_text() == drawn["picture"](), "run: python docs/draw_wiring.py"
    bcm = drawn["BCM_OF_PIN"]
    assert tuple(bcm[wire.pin] for wire in drawn["LEDS"]) == LightsTable().pins
    buzzer = [bcm[wire.pin] for wire in drawn["BUZZER"] if wire.pin in bcm]
    assert buzzer == [LightsTable().buzzer_pin]
    page = (ROOT / "docs/wiring.md").read_text()
    header = ", ".join(str(wire.pin) for wire in drawn["LEDS"][:4])
    numbers = ", ".join(str(pin) for pin in LightsTable().pins[:4])
    assert f"| {header} | {numbers} |" in page
