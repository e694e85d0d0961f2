"""What a decision costs by itself, and whether it costs more after a long history.

An acceptor on a real ledger in this process, a lone tap at a time: all that is read, decided,
signed and written, but neither HTTP nor the commit. Cards with a short and with a long past are
tapped in turns, so that whatever else this machine does meets both alike. The past is made by the
acceptor itself.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey
from sqlalchemy import Connection

from taprail_common.clock import SystemClock
from taprail_common.ids import new_id, payment_id
from taprail_gateway.accept import AcceptItem, Acceptor, Answer
from taprail_gateway.authorize import Evidence, PaymentRequest, Profile, Rules
from taprail_gateway.estimate import SettlementEstimate
from taprail_gateway.fraud_settings import FraudSettings
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.group_commit import MAX_GROUP
from taprail_gateway.ledger.queries import check_invariants
from tests.bench.scenario import Bench, BenchError, Results
from tests.support.ledger_fixtures import Registry, seed_registry

SHORT: Final = 10
LONG: Final = 10_000
"""Payments that a card has made before."""
_CARDS: Final = 4
"""Of either kind."""
_TAPS: Final = 2_000
_WARM_UP: Final = 100
_LIMIT_UNITS: Final = 10**15
_ASKED_BUT_NOT_HEARD: Final = FraudSettings(decline_points=1_000_000, alert_points=1_000_000)
"""Cards that tap without a pause are what the rules are against; here they decline nothing."""


class _Counter:
    """An acceptor, and cards that tap at it."""

    def __init__(self, ledger: Ledger, people: Registry) -> None:
        clock, estimate = SystemClock(), SettlementEstimate(least_ms=1, most_ms=2)
        rules = Rules("TUSD", 6, fraud=_ASKED_BUT_NOT_HEARD)
        self.acceptor = Acceptor(SigningKey.generate(), rules, clock, estimate)
        self.ledger = ledger
        self._people = people
        self._clock = clock
        self._taps = [0] * len(people.cards)

    def tap(self, card: int) -> AcceptItem:
        """A request of one unit by the card's next tap."""
        self._taps[card] += 1
        terminal, request_id = self._people.terminal_id, new_id("req")
        evidence = Evidence(
            Profile.SUN, f"{card:064x}", self._people.cards[card].uuid, self._taps[card], 1
        )
        request = PaymentRequest(
            requester=terminal,
            request_id=request_id,
            payment_id=payment_id(terminal, request_id),
            terminal_id=terminal,
            merchant_id=self._people.merchant_id,
            amount_units=random.randint(1, 1_000),
            currency="TUSD",
            tapped_at_ms=self._clock.now_ms(),
            accept_until_ms=None,
            evidence=evidence,
        )
        body = b'{"requestId":"' + request_id.encode() + b'"}' + bytes(400)
        return AcceptItem(request, body, self._clock.monotonic_s(), signature="s" * 88)

    def live_through(self, card: int, payments: int) -> None:
        """Make a card's past, many payments to a commit."""
        for start in range(0, payments, MAX_GROUP):
            items = [self.tap(card) for _ in range(min(MAX_GROUP, payments - start))]
            _approved(self.ledger.write_now(partial(self.acceptor.run, items=items)))

    def timed(self, card: int) -> float:
        """Milliseconds from a lone tap's request to what is ready to be committed."""
        item = self.tap(card)

        def run(connection: Connection) -> float:
            began_s = time.perf_counter()
            results = self.acceptor.run(connection, [item])
            took_ms = (time.perf_counter() - began_s) * 1000
            _approved(results)
            return took_ms

        return self.ledger.write_now(run)


def measure_decisions(bench: Bench, folder: Path) -> Results:
    """`accept.decide_*` and `accept.history_ratio`."""
    url = f"sqlite:///{folder / 'ledger.db'}"
    ledger = Ledger.open(url, clock=SystemClock(), migrate=True)
    try:
        people = seed_registry(
            ledger,
            cards=2 * _CARDS,
            balance_units=_LIMIT_UNITS,
            single_limit_units=_LIMIT_UNITS,
            daily_limit_units=_LIMIT_UNITS,
        )
        counter = _Counter(ledger, people)
        for card in range(2 * _CARDS):
            bench.say(f"a past for card {card + 1} of {2 * _CARDS}")
            counter.live_through(card, SHORT if card < _CARDS else LONG)
        bench.say(f"{_TAPS:,} lone taps")
        results = _results(list(_tap_in_turns(counter)))
        if problems := ledger.read_now(check_invariants):
            raise BenchError(problems[0])
        return results
    finally:
        ledger.dispose()


def _tap_in_turns(counter: _Counter) -> Iterator[tuple[float, float]]:
    """Times of a card with a short past and of one with a long one, one after the other."""
    for number in range(_WARM_UP + _TAPS // 2):
        short, long = number % _CARDS, _CARDS + number % _CARDS
        first, second = (short, long) if number % 2 else (long, short)
        times = {card: counter.timed(card) for card in (first, second)}
        if number >= _WARM_UP:
            yield times[short], times[long]


def _results(times: Sequence[tuple[float, float]]) -> Results:
    short, long = zip(*times, strict=True)
    every = sorted((*short, *long))
    return {
        "accept.decide_p50_ms": statistics.median(every),
        "accept.decide_p99_ms": every[round(0.99 * len(every)) - 1],
        "accept.history_ratio": statistics.median(long) / statistics.median(short),
    }


def _approved(results: Sequence[object]) -> None:
    if not all(isinstance(each, Answer) and each.payment_id is not None for each in results):
        raise BenchError("not every tap was approved")
