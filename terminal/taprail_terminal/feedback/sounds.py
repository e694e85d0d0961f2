"""Tone sequences: pure functions from a sequence and a time to the frequency that sounds.

Answers for what each tone is; `scene` says when it is heard. It drives no buzzer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class Tone:
    """A tone of a frequency and a length; frequency 0 is a pause."""

    frequency_hz: int
    duration_ms: int


Sound: TypeAlias = tuple[Tone, ...]

SILENCE: Final[Sound] = ()

# EMV Contactless Book A, user interface: the success tone is one high beep (about 1500 Hz), the
# alert tone two low ones (about 750 Hz, 200 ms each). In between lies a whole octave, so that they
# are told apart by a cheap piezo and by ears that hear high tones badly.
_HIGH_HZ: Final = 1500
_LOW_HZ: Final = 750

CARD_READ: Final[Sound] = (Tone(_HIGH_HZ, 120),)
"""Short: the card may go. Not the tone of an approval."""

APPROVED: Final[Sound] = (Tone(_HIGH_HZ, 150), Tone(2000, 350))
"""Rises: the only sound that does."""

DECLINED: Final[Sound] = (Tone(_LOW_HZ, 200), Tone(0, 200), Tone(_LOW_HZ, 200))
"""The alert tone."""

TRY_AGAIN: Final[Sound] = (Tone(_HIGH_HZ, 60), Tone(0, 60), Tone(_HIGH_HZ, 60), Tone(0, 60)) * 2
"""Four quick ticks: nothing is wrong but the distance."""

OFFLINE: Final[Sound] = (Tone(_HIGH_HZ, 120), Tone(0, 60), Tone(1000, 250))
"""Falls where an approval rises, and ends where *unknown* is."""

UNKNOWN: Final[Sound] = (Tone(1000, 400),)
"""One long tone at middle height, neither yes nor no."""

CARD_LEFT: Final[Sound] = (Tone(2000, 120), Tone(0, 120)) * 3
"""Three high tones, higher than any other: somebody is about to leave without a card."""

TEST: Final[Sound] = (Tone(_LOW_HZ, 60), Tone(1000, 60), Tone(_HIGH_HZ, 60))


def duration_ms(sound: Sound) -> int:
    """How long the whole sequence lasts."""
    return sum(tone.duration_ms for tone in sound)


def sounding(sound: Sound, elapsed_ms: int) -> tuple[int, int | None]:
    """What sounds at this time: (frequency in Hz or 0, ms until that changes or None for never)."""
    end_ms = 0
    for tone in sound:
        end_ms += tone.duration_ms
        if elapsed_ms < end_ms:
            return tone.frequency_hz, end_ms - elapsed_ms
    return 0, None
