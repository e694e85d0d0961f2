"""A soak of an hour leaves no fault out, and sees each crash point in each seed."""

from __future__ import annotations

from collections import Counter

from taprail_hwsim.chaos.troubles import CRASH_PREFIX, catalogue
from tests.e2e.test_crashes import GATEWAY_DEATHS
from tests.soak import chaos, days
from tests.soak.__main__ import PLANNED_SEEDS
from tests.soak.campaign import Means


def test_everything_that_can_go_wrong_is_planned() -> None:
    plan = days.planned(PLANNED_SEEDS) | chaos.planned(PLANNED_SEEDS, Means())
    assert set(catalogue()) <= set(plan)
    assert all(
        times >= PLANNED_SEEDS for name, times in plan.items() if name.startswith(CRASH_PREFIX)
    )


def test_the_deck_deals_each_fault_as_often_as_planned() -> None:
    plan = chaos.planned(PLANNED_SEEDS, Means())
    dealer = chaos.Chaos(1, Means())
    dealt = Counter(name for _ in range(PLANNED_SEEDS) for name in dealer.deal())
    assert set(dealt) == {*chaos.DOOR, *chaos.OTHERS}
    assert all(dealt[name] >= plan[name] >= 1 for name in dealt)


def test_the_crash_points_at_the_door_have_their_deaths_in_the_end_to_end_tests() -> None:
    assert {name.removeprefix(CRASH_PREFIX) for name in chaos.DOOR} <= {
        death.point for death in GATEWAY_DEATHS
    }
