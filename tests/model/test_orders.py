"""One order of events for each thing that guards the money: what would go wrong without it, here.

The machine finds these by itself when it runs for long. Here each is at hand at once, so that a
guard that is missing is seen in seconds, and by its name.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.fake_node import Fault
from tests.model.machine import Settlement, quiet
from tests.model.people import Holder, Theft
from tests.model.shop import LANE_COINS_WEI
from tests.model.stage import LEASE_S, Plan


@pytest.fixture
def run() -> Iterator[Settlement]:
    machine = Machine()
    with quiet():
        yield machine
        machine.holds()
        machine.teardown()


class Machine(Settlement):
    """The machine's rules by hand, judged after each that matters."""

    def on_stage(self, lanes: int = 1, per_transaction: int = 2, confirmations: int = 1) -> None:
        self.open(plan=Plan(lanes, 1, confirmations, per_transaction))

    def works(self, rounds: int) -> None:
        for _ in range(rounds):
            self.go_on(rounds=1)
            self.holds()


def test_slowness_alone_fails_no_payment(run: Machine) -> None:
    run.on_stage(per_transaction=1)
    run.sell_and_send(card=0, count=2)
    run.leave_out(rounds=11)
    run.holds()
    run.leave_out(rounds=3)


@pytest.mark.parametrize("how", [Holder.BURNS, Holder.USES_NONCE])
def test_a_burnt_authorization_pays_nothing_and_fails_by_proof(run: Machine, how: Holder) -> None:
    run.on_stage(per_transaction=3)
    run.sell_and_send(card=0, count=2)
    run.holder(does=how, which=0)
    run.works(4)


@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize("points", range(0, 22, 3))
def test_a_gateway_that_sleeps_writes_nothing_after_its_lease(
    run: Machine, points: int, goes_on: bool
) -> None:
    run.on_stage()
    run.start_gateway()
    first, second = run.on.gateways
    run.sell(card=0, units=10, priority=0, count=3)
    first.hold_after = points
    first.send()
    run.wait(LEASE_S + 1)
    second.keep()
    if goes_on:
        second.send()
    first.send()
    run.on.bury()
    run.holds()


@pytest.mark.parametrize("points", range(0, 22, 3))
def test_a_confirmer_that_sleeps_writes_nothing_after_its_lease(run: Machine, points: int) -> None:
    run.on_stage()
    run.start_gateway()
    first, second = run.on.gateways
    run.sell_and_send(card=0, count=3)
    run.mine(seconds=1, most=1)
    first.hold_after = points
    first.confirm()
    run.wait(LEASE_S + 1)
    second.keep()
    first.confirm()
    run.on.bury()
    run.holds()


@pytest.mark.parametrize("points", range(0, 14, 2))
def test_a_confirmer_that_sleeps_in_a_reorg_takes_nothing_back_after_its_lease(
    run: Machine, points: int
) -> None:
    run.on_stage()
    run.start_gateway()
    first, second = run.on.gateways
    run.sell_and_send(card=0, count=3)
    run.works(2)
    run.reorg(depth=2, keep=False, most=None)
    first.hold_after = points
    first.confirm()
    run.wait(LEASE_S + 1)
    second.keep()
    first.confirm()
    run.on.bury()
    run.holds()


@pytest.mark.parametrize("points", range(0, 14, 2))
def test_a_confirmer_that_sleeps_reopens_nothing_after_its_lease(run: Machine, points: int) -> None:
    run.on_stage()
    run.start_gateway()
    first, second = run.on.gateways
    run.sell_and_send(card=0, count=1)
    run.works(2)
    run.mine(seconds=1, most=0)
    shown = run.on.chain.world.nonces
    shown[run.on.lanes[0]] -= 1  # a node that has lied before, or does now
    first.hold_after = points
    first.confirm()
    run.wait(LEASE_S + 1)
    second.keep()
    first.confirm()
    shown[run.on.lanes[0]] += 1
    run.on.bury()
    run.holds()


@pytest.mark.parametrize("points", range(0, 14, 2))
def test_a_rescuer_that_sleeps_makes_nothing_dearer_after_its_lease(
    run: Machine, points: int
) -> None:
    run.on_stage()
    run.start_gateway()
    first, second = run.on.gateways
    run.sell_and_send(card=0, count=1)
    run.spike_base_fee(gwei=30)
    run.works(1)
    run.mine(seconds=1, most=0)
    first.hold_after = points
    first.confirm()
    run.wait(LEASE_S + 1)
    second.keep()
    first.confirm()
    run.on.bury()
    run.holds()


@pytest.mark.parametrize("points", range(0, 22, 2))
def test_a_kill_at_any_point_of_sending_leaves_no_gap(run: Machine, points: int) -> None:
    run.on_stage(per_transaction=2)
    run.sell_and_send(card=1, count=1)
    run.works(1)
    run.sell(card=0, units=10, priority=0, count=3)
    run.kill(which=0, points=points)
    run.sell_and_send(card=1, count=1)
    run.holds()
    run.works(1)


def test_what_a_reorg_takes_back_is_noticed_and_sent_again(run: Machine) -> None:
    run.on_stage()
    run.sell_and_send(card=0, count=3)
    run.works(2)
    run.reorg(depth=2, keep=False, most=None)
    run.holds()


def test_a_proof_waits_until_no_reorg_can_undo_it(run: Machine) -> None:
    run.on_stage(per_transaction=1)
    run.sell_and_send(card=0, count=1)
    run.holder(does=Holder.BURNS, which=0)
    run.works(2)
    run.wait(70)
    run.works(2)
    run.reorg(depth=6, keep=False, most=None)
    run.holds()


def test_a_burn_proves_nothing_until_no_reorg_can_undo_it(run: Machine) -> None:
    run.on_stage(per_transaction=1)
    run.sell_and_send(card=0, count=1)
    run.leave_out(rounds=5)  # until it is on the list for review
    for _ in range(12):
        run.mine(seconds=12, most=0)  # what was signed has ended long ago, and nobody has looked
    run.holder(does=Holder.BURNS, which=0)
    run.mine(seconds=2, most=0)
    run.works(1)
    run.reorg(depth=3, keep=False, most=0)
    run.holds()


def test_a_refused_payment_fails_only_when_its_trials_have_ended(run: Machine) -> None:
    run.on_stage()
    run.sell(card=0, units=10, priority=0, count=1)
    run.holder(does=Holder.IS_FROZEN, which=0)
    for seconds in (1, 3, 9, 33, 129, 513):
        run.mine(seconds=seconds, most=None)
        run.works(1)
    run.holder(does=Holder.IS_FREE, which=0)
    run.stranger_executes(which=0)
    run.works(2)


@pytest.mark.parametrize("gwei", [3, 30])
def test_a_fee_spike_raises_the_price_and_nothing_else(run: Machine, gwei: int) -> None:
    run.on_stage(per_transaction=2)
    run.sell_and_send(card=0, count=3)
    run.spike_base_fee(gwei=gwei)
    run.works(6)


@pytest.mark.parametrize("fault", [Fault.NEVER, Fault.UNDERPRICED, Fault.NONCE_LOW, Fault.FUNDS])
def test_a_node_that_refuses_for_a_while_fails_no_payment(run: Machine, fault: Fault) -> None:
    run.on_stage(per_transaction=1)
    run.sell(card=0, units=10, priority=0, count=2)
    for _ in range(4):
        run.fail(node=0, fault=fault, times=3)
        run.works(4)


@pytest.mark.parametrize("which", list(Theft))
@pytest.mark.parametrize("keep", [True, False])
def test_a_stranger_with_a_lanes_key_stops_it_only_for_some_blocks(
    run: Machine, which: Theft, keep: bool
) -> None:
    run.on_stage(lanes=2, per_transaction=1, confirmations=2)
    run.sell_and_send(card=0, count=2)
    run.steal_nonce(lane=0, which=which)
    for _ in range(7):
        run.works(1)
        run.sell_and_send(card=1, count=1)
    run.reorg(depth=1, keep=keep, most=None)
    run.holds()


def test_a_lane_goes_on_behind_a_stranger_only_when_that_is_final(run: Machine) -> None:
    run.on_stage(per_transaction=1, confirmations=3)
    run.works(1)
    run.steal_nonce(lane=0, which=Theft.NEXT)
    run.works(2)
    run.sell_and_send(card=1, count=1)
    run.reorg(depth=2, keep=False, most=None)
    run.holds()


def test_nothing_counts_before_its_block_is_deep_enough(run: Machine) -> None:
    run.on_stage(confirmations=3)
    run.sell_and_send(card=0, count=2)
    run.works(1)


def test_an_empty_wallet_stops_its_lane_alone(run: Machine) -> None:
    run.on_stage(lanes=2, per_transaction=1)
    run.set_wallet(lane=0, coins_wei=0)
    run.sell(card=0, units=10, priority=0, count=4)
    run.works(4)
    assert not run.on.shop.open_payments()
    run.set_wallet(lane=0, coins_wei=LANE_COINS_WEI)


def test_a_node_that_shows_no_receipts_makes_no_stranger_of_us(run: Machine) -> None:
    run.on_stage(per_transaction=1)
    run.sell_and_send(card=0, count=1)
    run.fail(node=0, fault=Fault.NO_LOGS, times=2)
    run.on.troubles[0].faults[Fault.NO_RECEIPTS] = 2
    run.on.may_look_foreign = False
    run.works(1)


@pytest.mark.parametrize("strangers", [2, 5])
def test_strangers_that_a_reorg_takes_back_leave_no_gap_for_long(
    run: Machine, strangers: int
) -> None:
    run.on_stage(per_transaction=1)
    run.sell_and_send(card=0, count=1)
    run.works(1)
    for _ in range(strangers):
        run.steal_nonce(lane=0, which=Theft.NEXT)
        run.works(2)
    run.reorg(depth=3 * strangers, keep=False, most=None)
    run.sell_and_send(card=1, count=1)
    run.holds()
