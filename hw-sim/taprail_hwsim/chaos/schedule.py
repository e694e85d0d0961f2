"""What happens when: drawn from a seed alone, so that a seed repeats it. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from taprail_hwsim.chaos.troubles import Draw, Trouble

_MOST_TOGETHER: Final = 3
_LONGEST_LEAD_S: Final = 1.5


@dataclass(frozen=True)
class Round:
    """Troubles that are at work together, after so much time of plain business."""

    number: int
    names: tuple[str, ...]
    troubles: tuple[Trouble, ...]
    lead_s: float

    def __str__(self) -> str:
        return " + ".join(str(trouble) for trouble in self.troubles)


def rounds(seed: int, names: Sequence[str], draws: Mapping[str, Draw]) -> Iterator[Round]:
    """Without end: each trouble alone once, in a drawn order, then some together, and again."""
    rng = random.Random(seed)
    number = 0
    while True:
        order = rng.sample(list(names), len(names))
        together = [_together(rng, names, draws) for _ in range(len(names) // 2)]
        for chosen in [[name] for name in order] + together:
            number += 1
            troubles = tuple(draws[name](rng) for name in chosen)
            yield Round(number, tuple(chosen), troubles, rng.uniform(0.2, _LONGEST_LEAD_S))


def _together(rng: random.Random, names: Sequence[str], draws: Mapping[str, Draw]) -> list[str]:
    """Two or three of different kinds, or as many as there are kinds."""
    wanted = rng.randint(2, _MOST_TOGETHER)
    chosen: dict[str, str] = {}
    for name in rng.sample(list(names), len(names)):
        kind = draws[name](random.Random(0)).kind
        chosen.setdefault(kind, name)
        if len(chosen) == wanted:
            break
    return list(chosen.values())
