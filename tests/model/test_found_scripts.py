"""Orders of events in which the state machine found payments stuck, kept as short as they were.

The machine's own runs differ from version to version; these stay.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.fake_node import Fault
from tests.model.machine import Settlement, quiet
from tests.model.people import Theft
from tests.model.stage import Plan


@pytest.fixture
def run() -> Iterator[Settlement]:
    machine = Settlement()
    with quiet():
        yield machine
        machine.holds()
        machine.teardown()


def test_a_listed_payment_whose_nonce_a_stranger_used_goes_round_at_once(run: Settlement) -> None:
    run.open(plan=Plan(confirmations=3, per_transaction=1))
    run.sell_and_send(card=0, count=1)
    run.start_gateway()
    run.steal_nonce(lane=0, which=Theft.LOWEST)
    run.kill(which=0, points=23)
    run.go_on(rounds=1)
    run.go_on(rounds=2)
    run.start_gateway()


def test_a_reorg_takes_back_a_stranger_that_the_lane_went_on_behind(run: Settlement) -> None:
    run.open(plan=Plan(per_transaction=1))
    run.sell_and_send(card=0, count=1)
    run.steal_nonce(lane=0, which=Theft.NEXT)
    run.go_on(rounds=4)
    run.reorg(depth=5, keep=False, most=None)
    run.sell_and_send(card=0, count=1)
    run.go_on(rounds=4)


def test_a_node_that_estimates_far_too_little_at_start_stops_nothing(run: Settlement) -> None:
    run.open(plan=Plan(per_transaction=3, calibrates=True))
    run.kill(which=0, points=0)
    run.keep_lanes(which=0)
    run.fail(node=0, fault=Fault.LOW_ESTIMATE, times=3)
    run.start_gateway()
    run.sell_and_send(card=0, count=3)
