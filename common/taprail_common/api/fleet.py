"""What a gateway tells of its terminals: how they are, and what a diagnosis has found."""

from __future__ import annotations

from typing import Literal

from taprail_common.api.base import Answer, Part, Time


class TerminalConfigPart(Part):
    """What operators want of a terminal's settings, and what it made of that."""

    wanted_version: int | None
    """None: nothing is wanted, its own file decides alone."""
    applied_version: int | None
    """None: it has not reported yet."""
    state: Literal["none", "waiting", "applied", "refused"]
    reason: str | None
    """Why it was refused."""


class TerminalHealth(Part):
    """How a terminal was when it was heard last; what it never said is null."""

    last_heard_at: Time | None
    is_silent: bool
    """Nothing was heard of it for 90 s, or never."""
    version: str | None
    phase: str | None
    reader_ok: bool | None
    reader: str | None
    unconfirmed: int | None
    """Sales that are not on the chain yet: the sum of the next two."""
    unresolved: int | None
    unsettled: int | None
    uptime_seconds: int | None
    clock_offset_ms: int | None
    config: TerminalConfigPart


class CheckPart(Part):
    """One part of a terminal, looked at."""

    name: str
    ok: bool
    detail: str
    what_to_do: str
    ms: int


class DiagnosisAnswer(Answer):
    """What a terminal has found, in its own words; its signature was checked."""

    terminal_id: str
    diagnosis_id: str
    asked_at: Time
    answered_at: Time
    version: str
    ok: bool
    checks: list[CheckPart]
