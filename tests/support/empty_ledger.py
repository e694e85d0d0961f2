"""A migrated ledger to be copied: a migration takes longer than most tests."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from taprail_gateway.ledger import migrate

FILE_NAME: Final = "ledger.db"


@cache
def template() -> Path:
    """The file that is copied, made once in a process and removed with it."""
    folder = Path(tempfile.mkdtemp(prefix="taprail-ledger-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / FILE_NAME
    migrate.upgrade(f"sqlite:///{path}")
    return path


def empty_ledger(folder: Path) -> str:
    """The URL of an empty ledger in this folder; one that is there already is left as it is."""
    path = folder / FILE_NAME
    if not path.exists():
        shutil.copy(template(), path)
    return f"sqlite:///{path}"
