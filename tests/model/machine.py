"""The state machine: hypothesis tries events in every order, and judges after each.

Each rule is one thing that may happen to a gateway, to a node, to the chain or to money. At the end
of every run all faults end, and everything that was sold has to be settled: nothing lost, nothing
twice, nothing stuck.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import structlog
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.model import ending, people
from tests.model.desk import TRIED, Wish
from tests.model.fake_chain import GWEI
from tests.model.fake_node import Fault
from tests.model.gateway import Gateway
from tests.model.people import Holder, Theft
from tests.model.shop import CARDS, LANE_COINS_WEI
from tests.model.stage import CAP_GWEI, LEASE_S, Plan, Stage

_ANY = st.integers(0, 1_000)
_CARD = st.integers(0, CARDS - 1)
_LATE_S = 6.0
_FEW = st.integers(1, 3)
_SETTINGS = [(name, value) for name, values in TRIED.items() for value in (*values, None)]
_MOST = st.sampled_from([None, 0, 1, 2])


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged: thousands of runs, and the hundreds that make a failing one short, would
    bury what failed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.reset_defaults()


class Settlement(RuleBasedStateMachine):
    """Every order of events that these rules can make."""

    steps: ClassVar[int] = 0
    """Taken in this process, so that a test can tell how much was tried."""
    stage: Stage | None = None

    @initialize(
        plan=st.builds(
            Plan,
            lanes=st.integers(1, 3),
            nodes=st.integers(1, 2),
            confirmations=st.integers(1, 3),
            per_transaction=st.integers(1, 3),
            refuses_low_fees=st.booleans(),
            calibrates=st.booleans(),
        )
    )
    def open(self, plan: Plan) -> None:
        """Everything is new."""
        self.stage = Stage(plan)

    @property
    def on(self) -> Stage:
        """The stage, which `open` has set."""
        assert self.stage is not None
        return self.stage

    def _gateway(self, choice: int) -> Gateway:
        return self.on.gateways[choice % len(self.on.gateways)]

    def is_running(self) -> bool:
        """Whether a gateway lives."""
        return bool(self.on.gateways)

    # --- work: hypothesis picks rules evenly, so what is seldom shares a rule with its like -----

    @rule(
        card=_CARD,
        units=st.sampled_from([1, 10, 300]),
        priority=st.sampled_from([0, 5, 10]),
        count=st.integers(1, 6),
    )
    def sell(self, card: int, units: int, priority: int, count: int) -> None:
        for _ in range(count):
            self.on.shop.sell(card, units, priority)

    @precondition(is_running)
    @rule(which=_ANY)
    def send(self, which: int) -> None:
        self._gateway(which).send()
        self.on.bury()

    @precondition(is_running)
    @rule(which=_ANY)
    def confirm(self, which: int) -> None:
        self._gateway(which).confirm()
        self.on.bury()

    @precondition(is_running)
    @rule(which=_ANY)
    def keep_lanes(self, which: int) -> None:
        self._gateway(which).keep()
        self._gateway(which).follow()
        self.on.bury()

    @rule(rounds=st.integers(1, 4))
    def go_on(self, rounds: int) -> None:
        """Some blocks' time in which everybody works; who died is started again."""
        for _ in range(rounds):
            if not self.on.gateways:
                self.on.start_gateway()
            self.on.round()

    @rule(card=_CARD, count=st.integers(1, 4))
    def sell_and_send(self, card: int, count: int) -> None:
        for _ in range(count):
            self.on.shop.sell(card, 10, 0)
        for gateway in self.on.gateways:
            gateway.send()
        self.on.bury()

    @rule(seconds=st.sampled_from([1, 2, 12]), most=_MOST)
    def mine(self, seconds: int, most: int | None) -> None:
        self.on.mine(seconds, most)

    # --- what goes wrong ----------------------------------------------------------------------

    @rule(depth=st.integers(1, 6), keep=st.booleans(), most=_MOST)
    def reorg(self, depth: int, keep: bool, most: int | None) -> None:
        self.on.reorg(depth, keep=keep, most=most)

    @rule(rounds=st.sampled_from([3, 11]))
    def leave_out(self, rounds: int) -> None:
        """Blocks come and take nothing of ours, perhaps until all that was signed has ended."""
        for _ in range(rounds):
            self.on.round(seconds=_LATE_S, most=0)

    @rule(which=_ANY)
    def drop_from_pool(self, which: int) -> None:
        self.on.chain.drop(which)

    @rule(gwei=st.sampled_from([3, 5, 30, CAP_GWEI + 50]))
    def spike_base_fee(self, gwei: int) -> None:
        self.on.chain.base_fee_wei = gwei * GWEI

    @rule(seconds=st.sampled_from([1, 5, LEASE_S + 1, 70, 4_000]))
    def wait(self, seconds: float) -> None:
        self.on.wait(seconds)

    @rule(node=_ANY, fault=st.sampled_from(Fault), times=_FEW)
    def fail(self, node: int, fault: Fault, times: int) -> None:
        self.on.fail(node, fault, times)

    @rule(node=_ANY, frozen=st.booleans())
    def freeze(self, node: int, frozen: bool) -> None:
        """The node shows nothing new from now on; or is itself again."""
        self.on.freeze(node, is_frozen=frozen)

    @precondition(is_running)
    @rule(which=_ANY, points=st.integers(0, 30))
    def kill(self, which: int, points: int) -> None:
        """The process dies at the point after so many others."""
        self._gateway(which).process.points_left = points

    @precondition(is_running)
    @rule(which=_ANY, points=st.integers(0, 15))
    def hold(self, which: int, points: int) -> None:
        """The next step of a loop stops after so many points, until that loop has its turn again:
        a machine that was asleep, a disk or a node that took its time."""
        self._gateway(which).hold_after = points

    @precondition(lambda self: len(self.on.gateways) < 2)
    @rule()
    def start_gateway(self) -> None:
        """After a crash, or a second one beside the first."""
        self.on.start_gateway()

    @rule(lane=_ANY, coins_wei=st.sampled_from([0, LANE_COINS_WEI]))
    def set_wallet(self, lane: int, coins_wei: int) -> None:
        """A wallet is empty, or topped up."""
        self.on.set_coins(lane, coins_wei)

    # --- other people -------------------------------------------------------------------------

    @rule(which=_ANY)
    def stranger_executes(self, which: int) -> None:
        people.execute(self.on.chain, which)

    @rule(does=st.sampled_from(Holder), which=_ANY)
    def holder(self, does: Holder, which: int) -> None:
        self.on.tamper(does, which)

    @rule(is_paused=st.booleans())
    def issuer(self, is_paused: bool) -> None:
        self.on.pause_token(is_paused=is_paused)

    @rule(lane=_ANY, which=st.sampled_from(Theft))
    def steal_nonce(self, lane: int, which: Theft) -> None:
        """A transaction of a lane's wallet that is not ours: the lane has to heal by itself."""
        self.on.steal_nonce(lane, which)

    @rule(wish=st.sampled_from(Wish), which=_ANY)
    def operator(self, wish: Wish, which: int) -> None:
        self.on.operate(wish, which)

    @rule(setting=st.sampled_from(_SETTINGS))
    def set_setting(self, setting: tuple[str, int | float | str | None]) -> None:
        self.on.desk.set(*setting)

    # --- judgement ----------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        """Nothing is wrong after any step."""
        if self.stage is None:
            return
        Settlement.steps += 1
        found = self.on.problems()
        assert not found, "\n".join(found)

    def teardown(self) -> None:
        """All faults end, and so must everything that was begun."""
        if self.stage is None:
            return
        try:
            if sys.exc_info()[0] is None:
                found = ending.settle(self.on)
                assert not found, "\n".join(found)
        finally:
            self.on.close()
