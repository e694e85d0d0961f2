"""How often somebody may ask: a user or a terminal, each by themselves, at this gateway.

Counted after it is known who asks, so that nobody can use up what is another's. The limits are kept
in this process alone: behind several gateways somebody may ask as often at each of them.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import StrEnum
from typing import Annotated, Final

from limits import RateLimitItem, parse_many
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter
from pydantic import AfterValidator

from taprail_common.clock import Clock, SystemClock
from taprail_common.config import Settings
from taprail_gateway.api.errors import HttpError

MAX_KEPT: Final = 20_000
"""Counters; far more than people who ask within a minute. Beyond it the oldest is forgotten."""


def _items(text: str) -> list[RateLimitItem]:
    return parse_many(text) if text else []


def _readable(text: str) -> str:
    if any(item.amount < 1 for item in _items(text)):  # what cannot be read is a ValueError
        raise ValueError("must allow one at least; leave it empty for no limit")
    return text


Limit = Annotated[str, AfterValidator(_readable)]
"""As `limits` writes them: `10/second; 300/minute`. Empty: none."""


class Kind(StrEnum):
    """What is counted together."""

    PAYMENT = "payment"
    TERMINAL_PAYMENT = "terminal_payment"
    OTHER = "other"
    PAIRING = "pairing"


class LimitSettings(Settings):
    """`[limits]`: for each user and each terminal by themselves."""

    process_async: Limit = "10/second; 120/minute"
    """Payments of a user."""
    terminal_payments: Limit = "20/second; 600/minute"
    """Payments of a terminal, which after an outage brings in at once what it took meanwhile."""
    other: Limit = "50/second; 1200/minute"
    """All else, together."""
    pairing: Limit = "5/minute; 60/hour"
    """Tries to pair a terminal, from one address."""


UNLIMITED: Final = LimitSettings(process_async="", terminal_payments="", other="", pairing="")


class RateLimits:
    """Counts requests; belongs to one event loop."""

    def __init__(self, settings: LimitSettings, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.counters = _Counters(self._clock)
        self._limiter = FixedWindowRateLimiter(self.counters)
        self._limits = {
            Kind.PAYMENT: _items(settings.process_async),
            Kind.TERMINAL_PAYMENT: _items(settings.terminal_payments),
            Kind.OTHER: _items(settings.other),
            Kind.PAIRING: _items(settings.pairing),
        }

    def take(self, who: str, kind: Kind) -> None:
        """Count a request; raises HttpError (429) with the time to wait when it is one too many."""
        for item in self._limits[kind]:
            if not self._limiter.hit(item, kind, who):
                ends_s, _ = self._limiter.get_window_stats(item, kind, who)
                raise _too_many(item, ends_s - self._clock.monotonic_s())


def _too_many(item: RateLimitItem, wait_s: float) -> HttpError:
    return HttpError(
        429,
        "too_many_requests",
        f"too many requests: at most {item}",
        headers={"Retry-After": str(max(1, math.ceil(wait_s)))},
    )


class _Counters(Storage):
    """Counters in memory that forget by themselves.

    The library's own does so by a thread that goes over all of them a hundred times a second.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._counters: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now_s = self._clock.monotonic_s()
        count, ends_s = self._counters.pop(key, (0, 0.0))
        if ends_s <= now_s:
            count, ends_s = 0, now_s + expiry
        self._counters[key] = (count + amount, ends_s)
        if len(self._counters) > MAX_KEPT:
            self._counters.popitem(last=False)
        return count + amount

    def get(self, key: str) -> int:
        count, ends_s = self._counters.get(key, (0, 0.0))
        return count if ends_s > self._clock.monotonic_s() else 0

    def get_expiry(self, key: str) -> float:
        return self._counters.get(key, (0, self._clock.monotonic_s()))[1]

    def __len__(self) -> int:
        return len(self._counters)

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._counters)
        self._counters.clear()
        return count

    def clear(self, key: str) -> None:
        self._counters.pop(key, None)
