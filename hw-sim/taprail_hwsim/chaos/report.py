"""What a campaign found, round by round, for people and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from taprail_hwsim.chaos.judge import Judgement
from taprail_hwsim.chaos.schedule import Round

NO_FAULT: Final = "(none)"


@dataclass(frozen=True)
class BlockCell:
    """One block of a round's timeline: how many payments it settled, and whether it was amid the
    trouble."""

    settled: int
    troubled: bool


@dataclass(frozen=True)
class RoundResult:
    """One round; a round without troubles is the control before the first."""

    round: Round
    judgement: Judgement
    remarks: tuple[str, ...] = ()
    injected: Counter[str] = field(default_factory=Counter)
    approved: int = 0
    declined: int = 0
    settled: int = 0
    blocks_to_settle: int = 0
    """From the end of the trouble until the last approved payment was completed."""
    blocks: tuple[BlockCell, ...] = ()
    state_dir: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "round": self.round.number,
            "faults": [
                {"name": name, "what": str(trouble), "remark": remark}
                for name, trouble, remark in zip(
                    self.round.names, self.round.troubles, self.remarks, strict=True
                )
            ],
            "injected": dict(self.injected),
            "approved": self.approved,
            "declined": self.declined,
            "settled": self.settled,
            "blocksToSettle": self.blocks_to_settle,
            "stateDir": str(self.state_dir),
            "judgement": self.judgement.to_json(),
        }


@dataclass(frozen=True)
class FaultSummary:
    """All rounds in which a fault was at work."""

    name: str
    rounds: int
    injected: int
    settled: int
    slowest_blocks: int
    failed: int
    failed_alone: int


@dataclass
class Report:
    """A whole campaign."""

    seed: int
    repeat: str
    results: list[RoundResult] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What went wrong outside of any round, like a gateway that does not stop."""
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether there was something to judge, and nothing was wrong."""
        rounds_hold = all(result.judgement.holds for result in self.results)
        return bool(self.results) and rounds_hold and not self.problems

    def summary(self) -> list[FaultSummary]:
        """A row for each fault, in the order of their names; the first is for no fault."""
        names = sorted({name for result in self.results for name in result.round.names})
        return [_summary("", [result for result in self.results if not result.round.names])] + [
            _summary(name, [result for result in self.results if name in result.round.names])
            for name in names
        ]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "ok": self.holds,
            "seed": self.seed,
            "repeat": self.repeat,
            "problems": self.problems,
            "seconds": round(self.seconds, 1),
            "approved": sum(result.approved for result in self.results),
            "settled": sum(result.settled for result in self.results),
            "rounds": [result.to_json() for result in self.results],
        }


def _summary(name: str, results: Sequence[RoundResult]) -> FaultSummary:
    failed = [result for result in results if not result.judgement.holds]
    return FaultSummary(
        name=name or NO_FAULT,
        rounds=len(results),
        injected=sum(result.injected[name] for result in results),
        settled=sum(result.settled for result in results),
        slowest_blocks=max((result.blocks_to_settle for result in results), default=0),
        failed=len(failed),
        failed_alone=sum(1 for result in failed if len(result.round.names) <= 1),
    )
