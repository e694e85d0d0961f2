"""How a card or a terminal was used lately: a few numbers that stay few, however much was paid.

Taps are counted in buckets, of a minute and of an hour. How many there were within the last minute
is the bucket of now, and of the one before as much as still lies within it: exact where taps come
evenly, and never above what the two buckets hold. The usual amount is a running mean with its mean
deviation, both of a fixed memory, as RFC 6298 section 2 keeps them for round trips: integers
throughout, and the square of nothing. Pure: what was, and a tap, give what is.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS

# RFC 6298 section 2.3: alpha is 1/8, beta is 1/4. A card forgets a way of spending in as few taps.
_MEAN_MEMORY: Final = 8
_SPREAD_MEMORY: Final = 4


class Activity(NamedTuple):
    """The columns of `activity` after its key; a card or terminal that was never used has zeros.

    Only cards have amounts.
    """

    minute: int = 0
    minute_taps: int = 0
    minute_taps_before: int = 0
    hour: int = 0
    hour_taps: int = 0
    hour_taps_before: int = 0
    hour_declines: int = 0
    hour_declines_before: int = 0
    payments: int = 0
    usual_units: int = 0
    spread_units: int = 0

    def taps_in_a_minute(self, now_ms: int) -> int:
        """About how many taps there were within the last minute."""
        counted = (self.minute_taps, self.minute_taps_before)
        return _recent(*_rolled(*counted, now_ms // MINUTE_MS - self.minute), now_ms, MINUTE_MS)

    def taps_in_an_hour(self, now_ms: int) -> int:
        """About how many taps there were within the last hour."""
        counted = (self.hour_taps, self.hour_taps_before)
        return _recent(*_rolled(*counted, now_ms // HOUR_MS - self.hour), now_ms, HOUR_MS)

    def declines_in_an_hour(self, now_ms: int) -> int:
        """About how many of these taps were declined."""
        counted = (self.hour_declines, self.hour_declines_before)
        return _recent(*_rolled(*counted, now_ms // HOUR_MS - self.hour), now_ms, HOUR_MS)

    def after(self, now_ms: int, *, declined: bool, amount_units: int | None = None) -> Activity:
        """With one more tap; `amount_units` when it is to become part of what is usual."""
        minute, hour = now_ms // MINUTE_MS, now_ms // HOUR_MS
        taps, taps_before = _rolled(self.minute_taps, self.minute_taps_before, minute - self.minute)
        hour_taps, hour_before = _rolled(self.hour_taps, self.hour_taps_before, hour - self.hour)
        declines, declines_before = _rolled(
            self.hour_declines, self.hour_declines_before, hour - self.hour
        )
        return Activity(
            minute,
            taps + 1,
            taps_before,
            hour,
            hour_taps + 1,
            hour_before,
            declines + declined,
            declines_before,
            *self._amounts(amount_units),
        )

    def handed_on(self) -> Activity:
        """For the card that takes this one's place: what was paid counts for it as well. What was
        declined may have been a thief's, and a minute is over before a new card is in use."""
        return self._replace(
            minute=0,
            minute_taps=0,
            minute_taps_before=0,
            hour_taps=self.hour_taps - self.hour_declines,
            hour_taps_before=self.hour_taps_before - self.hour_declines_before,
            hour_declines=0,
            hour_declines_before=0,
        )

    def _amounts(self, amount_units: int | None) -> tuple[int, int, int]:
        """How many amounts were seen, their mean and their mean deviation."""
        if amount_units is None:
            return self.payments, self.usual_units, self.spread_units
        count = self.payments + 1
        if count == 1:
            return 1, amount_units, 0
        # Until its memory is full, a mean is that of all it has seen.
        off = amount_units - self.usual_units
        mean = self.usual_units + _share(off, min(count, _MEAN_MEMORY))
        spread = self.spread_units + _share(
            abs(off) - self.spread_units, min(count - 1, _SPREAD_MEMORY)
        )
        return min(count, _MEAN_MEMORY), mean, spread


UNUSED: Final = Activity()


def _rolled(count: int, before: int, passed: int) -> tuple[int, int]:
    """The bucket of now and the one before it, when so many periods have passed since they were
    written. A clock that was set back a little goes on counting; one set back far begins anew."""
    if passed in {0, -1}:
        return count, before
    return (0, count) if passed == 1 else (0, 0)


def _recent(count: int, before: int, now_ms: int, period_ms: int) -> int:
    return count + before * (period_ms - now_ms % period_ms) // period_ms


def _share(units: int, parts: int) -> int:
    """A part of a difference, rounded: cut off, small differences would never count."""
    return (2 * units + parts) // (2 * parts)
