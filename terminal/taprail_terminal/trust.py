"""Which gateway key this terminal trusts, when the one that it was given was followed by another.

`gateway.json` in the state folder says where the chain has led so far, and from which key: a
configuration or a pairing that names another key begins anew with that one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nacl.signing import VerifyKey

from taprail_common.errors import InputError
from taprail_common.signing import parse_public_key, public_key_text
from taprail_terminal.atomic_file import read_json, write_json

TRUST_FILE: Final = "gateway.json"
_KEY: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trusted:
    """The key of today, and the one before with the time until when it was the gateway's."""

    current: VerifyKey
    former: VerifyKey | None = None
    former_until_ms: int = 0


def trusted(state_dir: Path, given: VerifyKey) -> Trusted:
    """Where the chain from the given key has led; a damaged file begins anew, and is followed
    again at the next greeting."""
    try:
        kept = read_json(state_dir / TRUST_FILE)
    except InputError:
        kept = None
    if not isinstance(kept, dict) or kept.get("given") != public_key_text(given):
        return Trusted(given)
    keys = [kept.get("current"), kept.get("former")]
    until_ms = kept.get("formerUntilMs")
    if not all(isinstance(key, str) and _KEY.fullmatch(key) for key in keys):
        return Trusted(given)
    current, former = (parse_public_key(str(key)) for key in keys)
    return Trusted(current, former, until_ms if isinstance(until_ms, int) else 0)


def follow(state_dir: Path, given: VerifyKey, to: VerifyKey, now_ms: int) -> None:
    """Trust the successor from the next start on: stored at once or not at all."""
    before = trusted(state_dir, given).current
    write_json(
        state_dir / TRUST_FILE,
        {
            "given": public_key_text(given),
            "current": public_key_text(to),
            "former": public_key_text(before),
            "formerUntilMs": now_ms,
        },
    )
