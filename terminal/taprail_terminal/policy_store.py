"""The gateway's policy for offline sales on the disk, as it was signed: TinyDB in one JSON file.

Answers for a file that a power cut leaves whole. Nothing that is read here is believed: that is
decided by the signature, at each use (`offline`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tinydb import TinyDB

from taprail_common.errors import PartError
from taprail_terminal.outbox_rows import Evidence
from taprail_terminal.storage import AtomicJSONStorage

_TABLE: Final = "policy"
_ONLY: Final = "1"
"""The document's number; there is never a second."""


class PolicyStore:
    """The signed policy in a file of its own. Not for the event loop: its methods sync."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._storage = TinyDB(path, storage=AtomicJSONStorage).storage

    def get(self) -> Evidence | None:
        """What was stored last, which nobody has checked yet; None where there is nothing, or
        nothing that could be a policy. Raises PartError."""
        try:
            tables = self._storage.read() or {}
            found = tables[_TABLE][_ONLY]
            return Evidence(str(found["body"]).encode(), str(found["signature"]))
        except OSError as exc:
            raise self._failure("read", exc) from exc
        except (KeyError, TypeError, ValueError):
            return None

    def put(self, kept: Evidence | None) -> None:
        """Replace it at once, or forget it. Raises PartError, and then the old one stays."""
        documents = {} if kept is None else {_ONLY: _document(kept)}
        try:
            self._storage.write({_TABLE: documents})
        except OSError as exc:
            raise self._failure("written", exc) from exc

    def _failure(self, what: str, exc: OSError) -> PartError:
        fix = "check the disk's space and health"
        return PartError("disk", f"{self._path} cannot be {what} ({exc.strerror})", fix=fix)


def _document(kept: Evidence) -> dict[str, Any]:
    return {"body": kept.body.decode(), "signature": kept.signature}
