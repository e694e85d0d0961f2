"""What pairing gave this device: `paired.json` in the state folder.

The configuration takes from it what its file leaves out; what the file says wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from taprail_common.errors import InputError, OperatorError
from taprail_common.pairing import PairAnswer
from taprail_terminal.atomic_file import read_json, write_json

PAIRED_FILE: Final = "paired.json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device keeps what pairing gives it, and whom it asks."""

    gateway_url: str
    state_dir: Path
    key_file: Path


def keep(state_dir: Path, answer: PairAnswer) -> None:
    """Store what pairing gave, at once or not at all."""
    write_json(state_dir / PAIRED_FILE, answer.model_dump(mode="json", by_alias=True))


def kept(state_dir: Path) -> PairAnswer | None:
    """What pairing gave; None for a device that was not paired. Raises OperatorError."""
    path = state_dir / PAIRED_FILE
    try:
        raw = read_json(path)
        return None if raw is None else PairAnswer.model_validate(raw)
    except (InputError, ValidationError):
        raise OperatorError(f"{path} is damaged", fix="pair the terminal anew") from None


def settings_of(answer: PairAnswer) -> dict[str, Any]:
    """The keys of the configuration that pairing answers, by their dotted names."""
    return {
        "terminal.id": answer.terminal_id,
        "terminal.merchant_id": answer.merchant_id,
        "terminal.currency": answer.currency,
        "terminal.decimals": answer.decimals,
        "terminal.gateway_public_key": answer.gateway_public_key,
    }
