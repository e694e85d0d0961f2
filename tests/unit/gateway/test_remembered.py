"""A memory that is bounded, keeps what is asked for, and counts."""

from __future__ import annotations

import random

from taprail_gateway.remembered import CacheUse, Remembered


def test_what_was_longest_not_asked_for_is_forgotten() -> None:
    memory: Remembered[int] = Remembered(2)
    memory.put("a", 1)
    memory.put("b", 2)
    assert memory.get("a") == 1
    memory.put("c", 3)
    assert [memory.get(name) for name in "abc"] == [1, None, 3]
    assert memory.use == CacheUse(hits=3, misses=1)


def test_a_name_that_is_put_again_takes_no_second_place() -> None:
    memory: Remembered[int] = Remembered(2)
    for value in (1, 2, 3):
        memory.put("a", value)
    memory.put("b", 4)
    assert (memory.get("a"), memory.get("b")) == (3, 4)


def test_a_memory_that_was_never_asked_has_no_rate() -> None:
    assert CacheUse(0, 0).hit_rate is None
    assert CacheUse(19, 1).hit_rate == 0.95


def test_the_regulars_of_ten_thousand_cards_are_remembered() -> None:
    """Zipf's law: few cards make most taps. Every card fits; so does the half that taps most."""
    cards = [f"card-{number}" for number in range(10_000)]
    weights = [1 / (number + 1) for number in range(len(cards))]
    taps = random.Random(1).choices(cards, weights, k=300_000)
    for bound, least in ((10_000, 0.95), (5_000, 0.85)):
        memory: Remembered[str] = Remembered(bound)
        for card in taps:
            if memory.get(card) is None:
                memory.put(card, card)
        rate = memory.use.hit_rate
        assert rate is not None
        assert rate >= least
