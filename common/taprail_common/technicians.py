"""What gateway and terminal tell each other of field technicians: who may change a terminal, and
what was changed.

The roster is signed by the gateway for one terminal, so that the terminal may believe its own copy
when there is no network. Changes are signed by the terminal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from taprail_common.api.base import Request, Time
from taprail_common.wire import Identifier

ROSTER_PATH: Final = "/api/terminals/technicians"
CHANGES_PATH: Final = "/api/terminals/changes"
ABOUT_ROSTER: Final = b"technicians"
"""What the roster's signature is about, beside its body."""

MAX_TECHNICIANS: Final = 40
"""So many fit into an answer; a merchant has a few."""
MAX_COPY_AGE_MS: Final = 7 * 24 * 3600 * 1000
"""How long a terminal believes its own copy: who is revoked meanwhile may still change what is out
of reach."""
MAX_CHANGES: Final = 20
MAX_COMMAND: Final = 200

PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Technician(Request):
    """Somebody whose key may change a terminal."""

    name: Identifier
    public_key: PublicKey


class Roster(Request):
    """All technicians, as they were when it was issued."""

    gateway_id: Identifier
    terminal_id: Identifier
    issued_at: Time
    technicians: Annotated[tuple[Technician, ...], Field(max_length=MAX_TECHNICIANS, strict=False)]


class Change(Request):
    """One change that a technician has made; `seq` counts the changes of one terminal's life."""

    seq: Annotated[int, Field(gt=0, lt=2**53)]
    at: Time
    technician: Identifier
    command: Annotated[str, Field(max_length=MAX_COMMAND)]
    outcome: Annotated[str, Field(max_length=MAX_COMMAND)]


class Changes(Request):
    """What a terminal tells of."""

    journal: Identifier
    """Of the terminal's journal: one that was reset begins a new one."""
    changes: Annotated[tuple[Change, ...], Field(max_length=MAX_CHANGES, strict=False)]


class ChangesKept(Request):
    """The gateway has them all, up to this one."""

    journal: Identifier
    up_to: int


def revision(technicians: Sequence[Technician]) -> str:
    """Names a list: two of the same revision let in the same people."""
    people = sorted([each.name, each.public_key] for each in technicians)
    return hashlib.sha256(json.dumps(people).encode()).hexdigest()[:16]
