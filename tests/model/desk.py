"""What an operator may do while everything runs: by the functions that the command line calls."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sqlalchemy import Connection

from taprail_common.errors import TapRailError
from taprail_gateway.ledger import actions, by_hand, queries, transitions
from taprail_gateway.ledger.actions import By
from taprail_gateway.settle import tuning
from taprail_gateway.settle.live import QUEUE_MODE, QueueMode
from taprail_gateway.settle.settings import SettlementSettings
from tests.model.gateway import ModelLedger
from tests.support.manual_clock import ManualClock

CANCELLED: Final = "cancelled by operator"
"""How the reason of such a failure begins."""
_PAUSED_BY_HAND: Final = "operator: to see what happens"


class Wish(Enum):
    """What an operator wants."""

    CANCEL = "payment cancel"
    RETRY = "review retry-all"
    RESET_STUCK = "queue reset-stuck"
    PAUSE = "queue pause"
    DRAIN = "queue drain"
    RESUME = "queue resume"
    CANCEL_UNSENT = "queue cancel-unsent"
    PAUSE_LANE = "lane pause"
    RESUME_LANE = "lane resume"


MODES: Final = {
    Wish.PAUSE: QueueMode.PAUSED,
    Wish.DRAIN: QueueMode.DRAINING,
    Wish.RESUME: QueueMode.RUNNING,
}

TRIED: Final[dict[str, tuple[int | float | str, ...]]] = {
    "payment_batch_size": (1, 3, 5),
    "payments_per_transaction": (1, 2, 5),
    "payment_batch_interval_ms": (100, 4_000),
    "max_in_flight_payments": (1, 4),
    "confirmation_batch_size": (1, 2),
    "confirmations": (1, 2, 3, "safe", "finalized"),
    "confirmation_timeout_s": (10, 60),
    "max_fee_cap_gwei": (3.0, 40.0),
    "priority_fee_gwei": (0.0, 2.0),
}
"""Settings with the values that are tried at run time."""


@dataclass(frozen=True, slots=True)
class Desk:
    """An operator with the command line at hand."""

    ledger: ModelLedger
    clock: ManualClock
    base: SettlementSettings

    def does(self, wish: Wish, payment: str | None, lane: str) -> None:
        """Try it; what is refused changes nothing."""
        try:
            self.ledger.write_now(lambda connection: self._do(connection, wish, payment, lane))
        except TapRailError:
            return

    def set(self, name: str, value: object) -> None:
        """Change a setting; None gives it back to the file."""
        try:
            self.ledger.write_now(
                lambda connection: tuning.change(connection, self.base, {name: value}, self._by)
            )
        except TapRailError:
            return

    def gives_all_back(self) -> None:
        """The queue runs, nothing is set, no lane rests because of a person."""

        def work(connection: Connection) -> None:
            stored = actions.stored_settings(connection)
            actions.set_values(connection, dict.fromkeys(stored), self._by)
            for lane in queries.all_lanes(connection):
                if lane.paused_because == _PAUSED_BY_HAND:
                    transitions.pause_lane(connection, lane.address, None)

        self.ledger.write_now(work)

    @property
    def _by(self) -> By:
        return By("cli:model", self.clock.now_ms(), "to see what happens")

    def _do(self, connection: Connection, wish: Wish, payment: str | None, lane: str) -> Any:
        by = self._by
        if wish is Wish.CANCEL and payment is not None:
            by_hand.cancel(connection, payment, by)
        elif wish is Wish.RETRY:
            listed = [each.id for each in by_hand.review_list(connection)]
            by_hand.retry_listed(connection, listed, by)
        elif wish is Wish.RESET_STUCK:
            by_hand.ask_rescue(connection, 0, by)
        elif wish is Wish.CANCEL_UNSENT:
            mode = actions.stored_settings(connection).get(QUEUE_MODE)
            if mode == QueueMode.PAUSED:  # as the command asks for
                by_hand.cancel_unsigned(connection, by)
        elif wish is Wish.PAUSE_LANE:
            transitions.pause_lane(connection, lane, _PAUSED_BY_HAND)
        elif wish is Wish.RESUME_LANE:
            transitions.pause_lane(connection, lane, None)
        elif wish in MODES:
            mode = MODES[wish]
            value = None if mode is QueueMode.RUNNING else mode.value
            actions.set_values(connection, {QUEUE_MODE: value}, by)
