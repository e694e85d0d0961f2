"""What is done next for a reader that gives trouble: one pure table, mild remedies first.

    NONE → SOFT_RESET → RF_CYCLE → REOPEN ⇄ HARD_RESET → NEW_PROCESS

The first two happen within a run of the reader, without anybody noticing; the others end the run.
A new process helps against one thing only: a call that never returns, for its thread and what it
holds cannot be taken back. A reader that is not there is waited for; nothing is reset for it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Rung(StrEnum):
    """What was done last."""

    NONE = "none"
    SOFT_RESET = "soft reset"
    RF_CYCLE = "RF cycle"
    REOPEN = "reopen"
    HARD_RESET = "hard reset"
    NEW_PROCESS = "new process"


class Sign(StrEnum):
    """What the reader has shown since."""

    ANSWERS = "answers"
    STEADY = "steady"
    """It has worked for STEADY_S."""
    FAILED = "failed"
    HUNG = "hung"
    ABSENT = "absent"
    """It is not there to be opened."""


_R = Rung
_S = Sign

TABLE: Final[dict[Rung, dict[Sign, Rung]]] = {
    _R.NONE: {
        _S.ANSWERS: _R.NONE,
        _S.STEADY: _R.NONE,
        _S.FAILED: _R.SOFT_RESET,
        _S.HUNG: _R.REOPEN,
        _S.ABSENT: _R.REOPEN,
    },
    _R.SOFT_RESET: {
        _S.ANSWERS: _R.NONE,
        _S.STEADY: _R.NONE,
        _S.FAILED: _R.RF_CYCLE,
        _S.HUNG: _R.REOPEN,
        _S.ABSENT: _R.REOPEN,
    },
    _R.RF_CYCLE: {
        _S.ANSWERS: _R.NONE,
        _S.STEADY: _R.NONE,
        _S.FAILED: _R.REOPEN,
        _S.HUNG: _R.REOPEN,
        _S.ABSENT: _R.REOPEN,
    },
    # From here on an answer is not enough: a reader that opens and fails at once goes on climbing.
    _R.REOPEN: {
        _S.ANSWERS: _R.REOPEN,
        _S.STEADY: _R.NONE,
        _S.FAILED: _R.HARD_RESET,
        _S.HUNG: _R.HARD_RESET,
        _S.ABSENT: _R.REOPEN,
    },
    _R.HARD_RESET: {
        _S.ANSWERS: _R.HARD_RESET,
        _S.STEADY: _R.NONE,
        _S.FAILED: _R.REOPEN,
        _S.HUNG: _R.NEW_PROCESS,
        _S.ABSENT: _R.REOPEN,
    },
    # Asked for, and not come yet: a sale may be under way.
    _R.NEW_PROCESS: {
        _S.ANSWERS: _R.NEW_PROCESS,
        _S.STEADY: _R.NONE,
        _S.FAILED: _R.REOPEN,
        _S.HUNG: _R.NEW_PROCESS,
        _S.ABSENT: _R.REOPEN,
    },
}

WITHIN_A_RUN: Final = frozenset({Rung.SOFT_RESET, Rung.RF_CYCLE})

STEADY_S: Final = 10.0
"""A reader that has worked for so long is over its trouble."""

REOPEN_AFTER_S: Final = (0.5, 1.0, 2.0, 4.0, 5.0)
"""Pauses before each try in a row; the last one stays. Healed within 15 s without a person."""


def next_rung(rung: Rung, sign: Sign) -> Rung:
    """What is done about a sign, after what was done last."""
    return TABLE[rung][sign]


def pause_s(tries: int) -> float:
    """How long to wait before a try, after so many in vain."""
    return REOPEN_AFTER_S[min(tries, len(REOPEN_AFTER_S) - 1)]
