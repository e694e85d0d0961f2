"""`taprail-sim demo`, as `make demo` runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.programs import run

pytestmark = pytest.mark.e2e


def test_the_demo_tells_its_story_and_proves_it(tmp_path: Path) -> None:
    done = run("taprail-sim", "demo", "--json", "--pictures", str(tmp_path / "pictures"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    proof = report["proof"]
    assert proof["holds"]
    assert proof["ledgerUnits"] == proof["chainUnits"] > 0
    assert proof["approvedTaps"] == proof["transfers"] >= 16
    assert proof["doubled"] == proof["missing"] == proof["problems"] == []
    outcomes = [tap["outcome"] for tap in report["taps"]]
    assert outcomes.count("declined") == 2  # over the limit, replayed
    assert outcomes.count("try_again") == 1
    _check_stages([tap for tap in report["taps"] if tap["outcome"] == "approved"])
    for path in map(Path, report["pictures"]):
        with Image.open(path) as picture:
            assert picture.width >= 128
            assert len(picture.convert("L").getcolors() or []) > 1, f"{path.name} shows nothing"


def _check_stages(approved: list[dict[str, object]]) -> None:
    """Each stage was reached, none before the one that it follows from."""
    for tap in approved:
        stages = tap["stagesMs"]
        assert isinstance(stages, dict)
        in_order = [stages[name] for name in ("read", "request", "verdict", "settled")]
        assert in_order == sorted(in_order)
        assert stages["block"] <= stages["settled"]
