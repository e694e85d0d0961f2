"""The master key's file: the key that wraps, one that will, and those that only still open.

Answers for the file as text, and for changing it so that whoever reads it meanwhile finds it whole.
What is wrapped by which key is in the ledger, see `rotation`.

Format: a line for each key. The first is the current one, 64 hex digits; then come `next` and the
digits of a key that is made known before it is used, and `old` and the digits of former ones.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from taprail_common.errors import OperatorError
from taprail_common.secret_files import read_secret_file
from taprail_common.signing import sync_folder, write_secret_file

KEY_BYTES: Final = 32
ID_BYTES: Final = 8
"""Of a key's name, which tells nothing of it: two of ours will not share one."""
MAX_OLD: Final = 8
_ID_INFO: Final = b"taprail/custody/id/v1"
_LINE: Final = re.compile(r"(?:(next|old) )?([0-9a-f]{64})", re.ASCII | re.IGNORECASE)


def key_id(master_key: bytes) -> bytes:
    """The name of a master key, which goes with all that it wraps."""
    return HKDF(SHA256(), ID_BYTES, salt=None, info=_ID_INFO).derive(master_key)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All master keys that are known here. Never shown."""

    current: bytes = field(repr=False)
    upcoming: bytes | None = field(default=None, repr=False)
    old: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read the file's text; None when it is damaged."""
        lines = [_LINE.fullmatch(line.strip()) for line in text.strip().splitlines()]
        kinds = [line[1].lower() if line and line[1] else "" for line in lines]
        keys = [bytes.fromhex(line[2]) for line in lines if line]
        if len(keys) != len(lines) or len(set(keys)) != len(keys):
            return None
        if kinds[:1] != [""] or kinds.count("") > 1 or kinds.count("next") > 1:
            return None
        named = list(zip(kinds, keys, strict=True))
        upcoming = next((key for kind, key in named if kind == "next"), None)
        old = tuple(key for kind, key in named if kind == "old")
        return cls(keys[0], upcoming, old) if len(old) <= MAX_OLD else None

    @property
    def text(self) -> str:
        """As it is in the file."""
        upcoming = [] if self.upcoming is None else [f"next {self.upcoming.hex()}"]
        old = [f"old {key.hex()}" for key in self.old]
        return "\n".join([self.current.hex(), *upcoming, *old]) + "\n"

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All of them, the current one first."""
        upcoming = () if self.upcoming is None else (self.upcoming,)
        return (self.current, *upcoming, *self.old)

    def prepared(self) -> Self:
        """With a key to come, if there is none yet."""
        if self.upcoming is not None:
            return self
        return replace(self, upcoming=secrets.token_bytes(KEY_BYTES))

    def promoted(self) -> Self:
        """With the key to come as the current one; raises OperatorError when too many are old."""
        if self.upcoming is None:
            raise ValueError("there is no key to come")
        if len(self.old) >= MAX_OLD:
            raise OperatorError(
                f"{MAX_OLD} old master keys are kept", fix="run `taprail admin key retire` first"
            )
        return replace(self, current=self.upcoming, upcoming=None, old=(self.current, *self.old))

    def without_old(self) -> Self:
        """With nothing that only opens."""
        return replace(self, old=())


def create_master_key(path: Path) -> None:
    """Make a new master key file for its owner alone; OperatorError when there is one already."""
    try:
        write_secret_file(path, KeyRing(secrets.token_bytes(KEY_BYTES)).text)
    except FileExistsError:
        raise OperatorError(
            f"a master key exists at {path}", fix="keep it: the wallets are lost without it"
        ) from None


def read_ring(path: Path) -> KeyRing:
    """Read the file; OperatorError when it is missing, damaged or open to others."""
    ring = KeyRing.parse(read_secret_file(path, "master key"))
    if ring is None:
        raise OperatorError(f"the master key {path} is damaged", fix="restore it from its backup")
    return ring


def write_ring(path: Path, ring: KeyRing) -> None:
    """Put another ring in the file's place, in one step; call it with `alone`."""
    beside = path.with_name(path.name + ".new")
    try:
        beside.unlink(missing_ok=True)  # of a run that was killed
        write_secret_file(beside, ring.text)
        owner = path.stat()
        os.chown(beside, owner.st_uid, owner.st_gid)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as exc:
        raise OperatorError(
            f"the master key {path} cannot be changed ({exc.strerror})",
            fix="run this as its owner, on the file itself and not on a credential's copy",
        ) from exc


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other commands from changing the same file; OperatorError when one does."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as exc:
        raise OperatorError("another command changes the master key", fix="wait for it") from exc
    finally:
        os.close(folder)
