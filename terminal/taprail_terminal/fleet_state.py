"""What this terminal knows of the configurations that were pushed to it: `fleet.json`.

Answers for keeping it over restarts, whole or not at all. A terminal that is given to another
gateway, and one whose file is damaged, begin anew: what is wanted is asked for again, and what
holds already changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from taprail_common.errors import InputError, PartError
from taprail_terminal.atomic_file import read_json, write_json

FLEET_FILE: Final = "fleet.json"


class Outcome(StrEnum):
    """What came of the version that was seen last."""

    NONE = ""
    TRYING = "trying"
    """It is in the file, on trial from the next start on."""
    APPLIED = "applied"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class FleetState:
    """The newest version that was dealt with, and the newest that was applied."""

    pairing: str
    """The gateway's key and the terminal's name there, to which these versions belong."""
    seen: int = 0
    applied: int = 0
    outcome: Outcome = Outcome.NONE
    reason: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the version that is being tried."""
    told: str = ""
    """The digest of the report that the gateway has taken."""


def load(folder: Path, pairing: str) -> FleetState:
    """What is kept for this pairing."""
    try:
        kept = read_json(folder / FLEET_FILE)
        state = FleetState(**{**kept, "outcome": Outcome(kept["outcome"])})
    except (InputError, PartError, TypeError, KeyError, ValueError):
        return FleetState(pairing)
    is_whole = isinstance(state.seen, int) and isinstance(state.applied, int)
    is_whole = is_whole and isinstance(state.settings, dict) and isinstance(state.reason, str)
    return state if is_whole and state.pairing == pairing else FleetState(pairing)


def save(folder: Path, state: FleetState) -> None:
    """Keep it; raises PartError."""
    write_json(folder / FLEET_FILE, {**asdict(state), "outcome": state.outcome.value})
