"""The form of what the outbox keeps: its rows, and the schema of its file by version."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_SCHEMA: Final = """
CREATE TABLE requests (
  number INTEGER PRIMARY KEY,
  request_id TEXT NOT NULL UNIQUE,
  amount_units INTEGER NOT NULL CHECK (amount_units > 0),
  currency TEXT NOT NULL,
  body BLOB NOT NULL,
  signature TEXT NOT NULL,
  stored_at_ms INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('stored', 'approved', 'declined', 'settled', 'failed')),
  verdict BLOB,
  verdict_signature TEXT,
  verdict_at_ms INTEGER,
  notice BLOB,
  notice_signature TEXT,
  finished_at_ms INTEGER,
  CHECK ((state = 'stored') = (verdict IS NULL)),
  CHECK ((state IN ('settled', 'failed')) = (notice IS NOT NULL))
) STRICT;
CREATE INDEX requests_open ON requests (number) WHERE state IN ('stored', 'approved');
CREATE INDEX requests_finished ON requests (number) WHERE state NOT IN ('stored', 'approved');
"""
_SHOWN: Final = """
ALTER TABLE requests ADD COLUMN shown_at_ms INTEGER;
UPDATE requests SET shown_at_ms = verdict_at_ms;
CREATE INDEX requests_unseen ON requests (number) WHERE shown_at_ms IS NULL;
"""
_CAME_BACK: Final = """
ALTER TABLE requests ADD COLUMN came_back_at_ms INTEGER;
"""
_OFFLINE: Final = """
ALTER TABLE requests ADD COLUMN offline INTEGER NOT NULL DEFAULT 0 CHECK (offline IN (0, 1));
CREATE INDEX requests_offline ON requests (state) WHERE offline = 1;
"""
_TOLD: Final = """
ALTER TABLE requests ADD COLUMN told_at_ms INTEGER CHECK (told_at_ms IS NULL OR offline = 1);
"""
STEPS: Final = (_SCHEMA, _SHOWN, _CAME_BACK, _OFFLINE, _TOLD)
"""The schema; a file of version n has had the first n."""


class RequestState(StrEnum):
    """Where a request is."""

    STORED = "stored"
    """It may have reached the gateway; nobody has said what became of it."""
    APPROVED = "approved"
    DECLINED = "declined"
    SETTLED = "settled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A request as it was sent: `body` byte for byte, `signature` over exactly that.

    `came_back` marks an approved one of which staff was told that the chain has not settled it,
    `offline` one that is taken before the gateway knows of it, and `told` that its customer was
    shown so.
    """

    request_id: str
    amount_units: int
    currency: str
    body: bytes
    signature: str
    stored_at_ms: int
    state: RequestState = RequestState.STORED
    came_back: bool = False
    offline: bool = False
    told: bool = False

    @property
    def is_taken(self) -> bool:
        """Whether its customer was let go without the gateway: what comes of it now concerns staff
        alone. One that was declined counts as such, told or not: better a loss too many."""
        is_over = self.state in {RequestState.DECLINED, RequestState.FAILED}
        return self.offline and (self.told or is_over)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gateway signed."""

    body: bytes
    signature: str


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """How many requests wait for a verdict, and how many approved ones for the chain."""

    unresolved: int
    unsettled: int
    oldest_unresolved_at_ms: int | None
