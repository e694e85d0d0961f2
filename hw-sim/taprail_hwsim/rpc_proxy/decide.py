"""Which fault meets which call: pure, from the rules and a generator of random numbers.

A rule applies a fault to the calls of some methods, always, at a rate, or to the next few.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from taprail_hwsim.rpc_proxy.exchange import Call, Fault


@dataclass(frozen=True)
class Amount:
    """How often: at a rate (a probability), or the next `count` times."""

    rate: float = 1.0
    count: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError("a rate is a probability, from 0.0 to 1.0")
        if self.count is not None and self.count < 0:
            raise ValueError("a count is not below 0")

    def __str__(self) -> str:
        return f"{self.rate:g}" if self.count is None else f"next {self.count}"


@dataclass(eq=False)
class Rule:
    """A fault, how often, and for which methods; empty: those of the fault itself."""

    name: str
    fault: Fault
    amount: Amount = Amount()
    methods: tuple[str, ...] = ()
    injected: int = field(default=0, init=False)

    def matches(self, call: Call) -> bool:
        """Whether this call may be met."""
        methods = self.methods or self.fault.methods
        return (not methods or call.method in methods) and self.fault.wants(call)

    def draw(self, rng: random.Random) -> bool:
        """Whether this time it happens."""
        if self.amount.count is None:
            hit = rng.random() < self.amount.rate
        else:
            hit = self.injected < self.amount.count
        self.injected += hit
        return hit


class Meeting(NamedTuple):
    """A rule that has met calls of an exchange."""

    rule: Rule
    calls: Sequence[Call]

    @property
    def rank(self) -> int:
        """Where it stands in the order in which faults act."""
        return self.rule.fault.rank


def choose(
    rules: Sequence[Rule], calls: Sequence[Call], rng: random.Random, *, answered: bool
) -> list[Meeting]:
    """The faults that an exchange meets: before the node is asked, or once it has `answered`."""
    now = [rule for rule in rules if rule.fault.is_of_answer == answered]
    met = [Meeting(rule, _met_by(rule, calls, rng)) for rule in now]
    return [meeting for meeting in met if meeting.calls]


def _met_by(rule: Rule, calls: Sequence[Call], rng: random.Random) -> list[Call]:
    matching = [call for call in calls if rule.matches(call)]
    if rule.fault.is_per_call:
        return [call for call in matching if rule.fault.goes_on(call) or rule.draw(rng)]
    return matching if matching and rule.draw(rng) else []
