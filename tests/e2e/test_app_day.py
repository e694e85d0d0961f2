"""An app's day: the packages that apps are made of, in Node, against `taprail-sim up`.

`app_day/day.mjs` is the app. It knows the contract and shares nothing with what it is played
against; its packages are pinned and come by `.ci/setup app`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from taprail_hwsim.node_tools import find_node
from tests.e2e.up import MODULES, fill_float, running

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).parent / "app_day" / "day.mjs"
LONGEST_S = 100.0


async def test_an_app_lives_through_its_day(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert MODULES.is_dir(), "the app's packages are not here: run `.ci/setup app`"
    folder = tmp_path_factory.mktemp("a")
    # Node looks for packages from where the script lies.
    (folder / "node_modules").symlink_to(MODULES)
    script = Path(shutil.copy(SCRIPT, folder))
    async with running(folder / "s") as up:
        await asyncio.to_thread(fill_float, up)
        (folder / "where.json").write_text(json.dumps(up.where))
        app = await asyncio.create_subprocess_exec(
            *(find_node(), script, folder / "where.json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(LONGEST_S):
                told, errors = await app.communicate()
        finally:
            if app.returncode is None:
                app.kill()
        assert app.returncode == 0, errors.decode()
    left_out = [step for step, was_taken in json.loads(told).items() if not was_taken]
    assert not left_out
