"""What a terminal's process does without."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
import taprail_common.cli, taprail_terminal.cli
from taprail_terminal.slim import UNUSED, import_socketio
import_socketio()
import taprail_terminal.app
unused = (*UNUSED, "rich", "cryptography")
assert not [name for name in unused if name in sys.modules]
import socketio, requests
socketio.AsyncClient()
"""


def test_a_terminal_is_whole_without_what_it_never_uses() -> None:
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
