"""Waits double, are spread over their whole length, and are bounded."""

from __future__ import annotations

from random import Random

import pytest

from taprail_gateway.backoff import Backoff

BACKOFF = Backoff(first_ms=100, longest_ms=5_000)


@pytest.mark.parametrize(
    ("failures", "longest_ms"),
    [(1, 100), (2, 200), (3, 400), (6, 3_200), (7, 5_000), (10**9, 5_000)],
)
def test_waits_fill_what_they_may_take(failures: int, longest_ms: int) -> None:
    random = Random(1)
    waits = [BACKOFF.wait_ms(failures, random) for _ in range(500)]
    assert 1 <= min(waits) < longest_ms * 0.05
    assert longest_ms * 0.95 < max(waits) <= longest_ms


def test_the_same_seed_waits_the_same() -> None:
    first, second = Random(7), Random(7)
    assert [BACKOFF.wait_ms(n, first) for n in range(9)] == [
        BACKOFF.wait_ms(n, second) for n in range(9)
    ]
