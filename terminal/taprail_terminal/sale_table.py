"""Every step between the phases of a sale, and nothing else: the table that `checkout` walks.

Answers for which event may happen where. What an event brings with it, and when the clock runs, is
in `checkout`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from taprail_terminal.sale import Phase


class Kind(StrEnum):
    """What an event means to the sale that is on."""

    ARM = "arm"
    CANCEL = "cancel"
    CARD = "card"
    READ = "read"
    READ_FOR_PIN = "read_for_pin"
    """Read, and its holder has to type a PIN before anything is sent."""
    PIN_GIVEN = "pin_given"
    PIN_LEFT = "pin_left"
    TYPED = "typed"
    TORN = "torn"
    UNREADABLE = "unreadable"
    REJECTED = "rejected"
    LIES = "lies"
    LIES_UNSEEN = "lies_unseen"
    """The same, and whose it is nobody knows."""
    REMOVED = "removed"
    NOT_SENT = "not_sent"
    TAKEN = "taken"
    """Stored for later, while the gateway is away."""
    YES = "yes"
    NO = "no"
    LATE = "late"
    """The result of another sale than the one that is on."""
    SETTLED = "settled"
    TIME_UP = "time_up"
    LEFT_BEHIND = "left_behind"
    """The card still lies there, long after it was asked away."""
    READER_LOST = "reader_lost"
    READER_BACK = "reader_back"


_P = Phase
_K = Kind

REST: Final = None
"""In the table: wherever the terminal rests now, see `_rest`."""

_SHOWN: Final[dict[Kind, Phase | None]] = {
    # A result is on the display. The next card, and the till's next amount, need not wait.
    _K.ARM: _P.READY,
    _K.TYPED: REST,
    _K.CANCEL: REST,
    _K.CARD: _P.READING,
    # Whoever has put it there must not take for theirs what stands on the display.
    _K.LIES_UNSEEN: REST,
    _K.TIME_UP: REST,
}

TRANSITIONS: Final[dict[Phase, dict[Kind, Phase | None]]] = {
    _P.IDLE: {_K.ARM: _P.READY, _K.LATE: REST, _K.READER_LOST: REST},
    _P.READY: {_K.CARD: _P.READING, _K.CANCEL: REST, _K.LATE: REST, _K.READER_LOST: REST},
    _P.READING: {
        _K.READ: _P.WAITING,
        _K.READ_FOR_PIN: _P.PIN,
        _K.TORN: _P.TRY_AGAIN,
        _K.UNREADABLE: _P.TRY_AGAIN,
        _K.REJECTED: _P.CARD_REFUSED,
        _K.READER_LOST: REST,
    },
    _P.PIN: {_K.PIN_GIVEN: _P.WAITING, _K.PIN_LEFT: _P.TRY_AGAIN, _K.CANCEL: REST},
    # No clock ever turns waiting into a no: from here on only a verdict says so.
    _P.WAITING: {
        _K.YES: _P.APPROVED,
        _K.NO: _P.DECLINED,
        _K.NOT_SENT: _P.TRY_AGAIN,
        _K.TAKEN: _P.OFFLINE,
        _K.TIME_UP: _P.UNKNOWN,
    },
    _P.UNKNOWN: {
        _K.YES: _P.APPROVED,
        _K.NO: _P.DECLINED,
        _K.TAKEN: _P.OFFLINE,
        _K.ARM: _P.READY,
    },
    _P.OFFLINE: {**_SHOWN, _K.YES: _P.APPROVED, _K.NO: _P.DECLINED},
    _P.APPROVED: {**_SHOWN, _K.SETTLED: _P.SETTLED},
    _P.SETTLED: _SHOWN,
    _P.DECLINED: _SHOWN,
    _P.TRY_AGAIN: _SHOWN,
    _P.CARD_REFUSED: _SHOWN,
    _P.OUT_OF_SERVICE: {
        _K.CANCEL: REST,
        _K.LATE: REST,
        _K.READER_LOST: REST,
        _K.READER_BACK: REST,
    },
}
"""Every step between phases. What is neither here nor in REMARKS raises and changes nothing."""

REMARKS: Final = frozenset(
    {
        *(_K.LIES, _K.LIES_UNSEEN, _K.REMOVED, _K.LATE, _K.LEFT_BEHIND),
        *(_K.READER_LOST, _K.READER_BACK, _K.TYPED),
    }
)
"""May happen at any time; where the table has no step for one, it is noted and the phase stays."""

RESULT_SHOWN: Final = frozenset(
    phase for phase, row in TRANSITIONS.items() if _K.TIME_UP in row
) - {_P.WAITING}
"""In which a customer reads what came of it, for a while."""
