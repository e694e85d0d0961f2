"""A terminal on a read-only root: it writes into its state folder, and nowhere else."""

from __future__ import annotations

import os
import pty
import tempfile
from pathlib import Path

import pytest

from tests.support.played_gateway import PlayedGateway
from tests.support.terminal_fixtures import TAPRAIL, make_key, started, write_config

# Python runs this before anything else: it notes each file that is opened for writing, made,
# renamed or removed.
_WATCH = """
import os, sys
_notes = os.open({notes!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def _hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if not (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event not in {{"os.mkdir", "os.rename", "os.remove", "os.chmod", "sqlite3.connect"}}:
        return
    path = arguments[0]
    if isinstance(path, (str, bytes, os.PathLike)):
        os.write(_notes, os.path.abspath(os.fsdecode(path)).encode() + b"\\n")
sys.addaudithook(_hook)
"""


async def test_nothing_is_written_outside_of_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks, notes = tmp_path / "hooks", tmp_path / "notes"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(_WATCH.format(notes=str(notes)))
    monkeypatch.setenv("PYTHONPATH", str(hooks))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    reader, port = pty.openpty()  # a line on which no reader answers
    async with PlayedGateway().serving() as gateway:
        config_file = write_config(tmp_path, gateway, os.ttyname(port))
        make_key(config_file)
        command = [str(TAPRAIL), "terminal", "run", "--config", str(config_file)]
        async with started(command, config_file) as running:  # the hook is set by a new interpreter
            await running.status()
    os.close(reader)
    os.close(port)
    state = str(tmp_path / "state")
    written = set(notes.read_text().splitlines())
    assert f"{state}/outbox.db" in written
    assert f"{state}/device.json.new" in written
    # ctypes looks for libraries by a file of its own there; the unit has a /tmp for itself alone.
    temporary = Path(tempfile.gettempdir())
    outside = {path for path in written if not path.startswith((state, "/dev/", "/proc/"))}
    assert {path for path in outside if temporary not in {Path(path), Path(path).parent}} == set()
