"""Chaos on the whole stack, one seed after the other; each in a process of its own.

Each turn is dealt some faults of a deck that holds all of them, so that none is left to chance, and
a stack of another make: more lanes, a PostgreSQL, a second gateway. Crash points inside settlement
are for `days`, which is quicker at them; here are those of the gateway's door.
"""

from __future__ import annotations

import itertools
import json
import random
import shlex
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from taprail_hwsim.chaos.troubles import CRASH_PREFIX, catalogue
from tests.soak.campaign import Found, Means

# The last round that begins in time has its warm-up, its fault and ten blocks still before it.
_LONGEST_ROUND_S: Final = 300.0
DOOR: Final = tuple(
    name
    for name in catalogue()
    if name.startswith((f"{CRASH_PREFIX}accept.", f"{CRASH_PREFIX}push."))
)
OTHERS: Final = tuple(name for name in catalogue() if not name.startswith(CRASH_PREFIX))
_DEALT: Final = 3
_TOGETHER: Final = 1
TWO_GATEWAYS: Final = "two gateways"
PUBLISHED: Final = "published contracts"
_MAKES: Final[Sequence[Mapping[str, int]]] = (
    {"lanes": 1},
    {"lanes": 3},
    {"lanes": 3, "postgresql": 1, "gateways": 2},
    {"lanes": 2, "published": 1},
    {"lanes": 1, "postgresql": 1, "published": 1},
)


class Chaos:
    """A campaign; what it deals follows from the first seed and the number of turns."""

    def __init__(self, first_seed: int, means: Means) -> None:
        self._deck = _deck(random.Random(first_seed))
        self._means = means
        self._makes = itertools.cycle(_MAKES)
        self._lock = threading.Lock()

    def __call__(self, seed: int, minutes: float) -> Found:
        """`taprail-sim chaos` with this seed; its timeline goes to this terminal."""
        with self._lock:  # two turns may begin at once
            make, faults = next(self._makes), self.deal()
        command = [
            *(str(Path(sys.executable).parent / "taprail-sim"), "chaos", "--json"),
            *("--seed", str(seed), "--minutes", f"{minutes:g}"),
            *("--rounds", str(len(faults) + _TOGETHER), *self._options(make)),
            *(word for fault in faults for word in ("--fault", fault)),
        ]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=minutes * 60 + _LONGEST_ROUND_S,
        )
        repeat = shlex.join(["taprail-sim", *command[1:]])
        if not done.stdout:
            return Found(False, f"ended with code {done.returncode}", repeat)
        report = json.loads(done.stdout)
        failed = [each for each in report["rounds"] if not each["judgement"]["holds"]]
        summary = (
            f"{len(report['rounds'])} rounds, {report['approved']} approved,"
            f" {report['settled']} settled, {len(failed)} rounds failed"
        )
        holds = report["ok"] and done.returncode == 0
        return Found(holds, summary, report["repeat"], self._covered(make, report["rounds"]))

    def deal(self) -> list[str]:
        """The faults of the next turn."""
        return [*DOOR, *(next(self._deck) for _ in range(_DEALT))]

    def _options(self, make: Mapping[str, int]) -> list[str]:
        words = ["--lanes", str(make["lanes"])]
        if self._has_postgres(make):
            words += ["--database", str(self._means.postgres_url)]
            words += ["--gateways", str(make.get("gateways", 1))]
        if self._is_published(make):
            words += ["--token", str(self._means.token), "--multicall", str(self._means.multicall)]
        return words

    def _covered(self, make: Mapping[str, int], rounds: Sequence[dict[str, Any]]) -> Counter[str]:
        """How often each fault was met alone, and the make of the stack."""
        covered = Counter({f"lanes:{make['lanes']}": 1})
        if self._has_postgres(make):
            covered["postgresql"] = 1
            covered[TWO_GATEWAYS] = int(make.get("gateways", 1) > 1)
        covered[PUBLISHED] = int(self._is_published(make))
        for each in rounds:
            if len(each["faults"]) == 1:
                name = each["faults"][0]["name"]
                covered[name] += bool(each["injected"].get(name))
        return covered

    def _has_postgres(self, make: Mapping[str, int]) -> bool:
        return bool(make.get("postgresql")) and self._means.postgres_url is not None

    def _is_published(self, make: Mapping[str, int]) -> bool:
        return bool(make.get("published")) and self._means.token is not None


def planned(seeds: int, means: Means) -> Counter[str]:
    """What so many turns are to cover, and how often at least."""
    rounds = seeds * _DEALT // len(OTHERS)
    plan = Counter(dict.fromkeys(DOOR, seeds)) + Counter(dict.fromkeys(OTHERS, rounds))
    plan += Counter({"lanes:1": 1, "lanes:3": 1})
    if means.postgres_url is not None:
        plan += Counter({"postgresql": 1, TWO_GATEWAYS: 1})
    if means.token is not None:
        plan += Counter({PUBLISHED: 1})
    return plan


def _deck(rng: random.Random) -> Iterator[str]:
    """Every fault once, in a drawn order, and again."""
    while True:
        yield from rng.sample(OTHERS, len(OTHERS))
