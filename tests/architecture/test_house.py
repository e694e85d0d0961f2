"""The house rules that a machine can check."""

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "terminal", "gateway", "hw-sim")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70


def sources() -> Iterator[Path]:
    for folder in PACKAGES:
        # A migration is one long list of what to create, and is never edited again.
        yield from sorted(p for p in (ROOT / folder).rglob("*.py") if p.parent.name != "versions")


def test_files_and_functions_stay_small() -> None:
    too_long = []
    for path in sources():
        text = path.read_text()
        if text.count("\n") > MAX_FILE_LINES:
            too_long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    too_long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert not too_long


def test_every_module_says_what_it_answers_for() -> None:
    silent = [path for path in sources() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


def test_the_product_ships_no_simulator() -> None:
    """No setting may turn a real terminal into a fake one: the wheel does not hold one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == [
        "common/taprail_common",
        "terminal/taprail_terminal",
        "gateway/taprail_gateway",
    ]
    for folder in ("common", "terminal", "gateway"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "hwsim" not in path.read_text(), path


def test_the_environment_is_read_in_three_places_only() -> None:
    """Configuration is one frozen object; nothing looks at the environment behind its back."""
    readers = {
        str(path.relative_to(ROOT))
        for folder in ("common", "terminal", "gateway")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"os\.environ|getenv|import environ", path.read_text())
    }
    assert readers == {
        f"common/taprail_common/{name}.py" for name in ("config", "crash", "service")
    }


@pytest.mark.parametrize("unit", sorted((ROOT / "systemd").glob("*.service")), ids=lambda p: p.name)
def test_systemd_takes_the_units(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd here")
    # The programs are not installed where the units expect them; that alone is put right here.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/taprail/bin/taprail", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    # systemd-analyze also reports what is wrong with units of the machine it runs on.
    assert unit.name not in done.stderr
    assert done.returncode == 0


def test_every_file_that_the_readme_names_is_there() -> None:
    for name in ("ARCHITECTURE.md", "THREAT_MODEL.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        assert f"({name})" in (ROOT / "README.md").read_text()
        assert (ROOT / name).is_file()
