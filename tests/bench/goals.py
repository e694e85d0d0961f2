"""What is to be reached, and how a result stands to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Goal:
    """A bound that a figure should keep: at most, or at least."""

    bound: float
    at_least: bool = False

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:,g}"


GOALS: Final[Mapping[str, Goal]] = {
    "tap.verdict_p50_ms": Goal(25),
    # With the air in it: what is asked of a terminal in a shop, on a LAN.
    "tap.rf.verdict_p50_ms": Goal(500),
    "tap.rf.verdict_p95_ms": Goal(1_000),
    "tap.pcsc_rf.verdict_p50_ms": Goal(500),
    "tap.pcsc_rf.verdict_p95_ms": Goal(1_000),
    "tap.verdict_p99_ms": Goal(100),
    "console.tap_p99_ratio": Goal(1.1),
    "accept.per_s": Goal(2_500, at_least=True),
    "accept.p99_ms": Goal(25),
    "accept.decide_p99_ms": Goal(1),
    "api.first_answer_p50_ms": Goal(5),
    "api.first_answer_p99_ms": Goal(25),
    "accept.history_ratio": Goal(1.1),
    "push.p99_ms": Goal(50),
    "push.kb_per_socket": Goal(64),
    "settle.completed_100_blocks": Goal(3),
    "settle.completed_200_blocks": Goal(3),
    "settle.sent_1000_s": Goal(1),
    "settle.completed_per_s": Goal(550, at_least=True),
    "settle.of_gas_limit": Goal(0.9, at_least=True),
    "settle.rpc_per_payment": Goal(0.3),
    "settle.rpc_per_payment_alone": Goal(1.5),
    "growth.tick_ratio": Goal(1.2),
    # Neither has a reason to follow what is in flight: a pass reads at most fifty of it, and what
    # is counted of it comes from an index. The fifth is for that, and for the node's larger pool.
    "growth.tick_ratio_in_flight": Goal(1.2),
    "growth.confirm_tick_ratio_in_flight": Goal(1.2),
    "restart.sending_s": Goal(5),
    "restart.sending_alone_s": Goal(5),
    "peer.web3_wait_beaten": Goal(400, at_least=True),
    "peer.web3_gather_beaten": Goal(1, at_least=True),
    "peer.ethers_beaten": Goal(1, at_least=True),
    "peer.viem_beaten": Goal(1, at_least=True),
    "peer.x402_beaten": Goal(10, at_least=True),
    "terminal.rss_mb": Goal(70),
    "terminal.idle_percent": Goal(2),
    "terminal.ready_s": Goal(2),
}


_OURS: Final = "settle.completed_per_s"
_PEERS: Final = ("web3_wait", "web3_gather", "ethers", "viem", "x402")


def beaten(results: Mapping[str, float]) -> dict[str, float]:
    """How many times a peer's rate ours is, for those that were measured in the same run."""
    if _OURS not in results:
        return {}
    rates = {name: results.get(f"peer.{name}_per_s") for name in _PEERS}
    return {f"peer.{name}_beaten": results[_OURS] / rate for name, rate in rates.items() if rate}


def table(results: Mapping[str, float]) -> Table:
    """Results beside their goals. A missed goal is shown, not punished: machines differ."""
    shown = Table(title="TapRail bench", title_justify="left", header_style="dim")
    shown.add_column("key")
    shown.add_column("result", justify="right")
    shown.add_column("goal", justify="right", style="dim")
    shown.add_column("")
    for key, value in results.items():
        goal = GOALS.get(key)
        shown.add_row(key, _number(value), str(goal or ""), _mark(goal, value))
    return shown


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.3g}"


def _mark(goal: Goal | None, value: float) -> Text:
    if goal is None:
        return Text("")
    return Text("✔", "bold green") if goal.holds(value) else Text("✘ missed", "bold red")
