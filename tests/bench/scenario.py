"""What every scenario is given, and small measuring tools that several use."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

Results = dict[str, float]
"""Keys as in the goals, units in the key."""


@dataclass(frozen=True)
class Bench:
    """A folder of the scenario's own, and how it tells what it does."""

    folder: Path
    say: Callable[[str], None]

    def sub(self, name: str) -> Path:
        """A fresh folder below its own."""
        path = self.folder / name
        path.mkdir()
        return path


Scenario = Callable[[Bench], Awaitable[Results]]


class BenchError(Exception):
    """A scenario could not be measured."""


class CpuMeter:
    """CPU seconds, user and system, of another process since the meter was made (proc(5))."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._began_cpu_s = self._cpu_s()
        self._began_s = time.monotonic()

    @property
    def used_s(self) -> float:
        return self._cpu_s() - self._began_cpu_s

    @property
    def percent(self) -> float:
        """Of one core, since the meter was made."""
        return 100 * self.used_s / (time.monotonic() - self._began_s)

    def _cpu_s(self) -> float:
        # Behind the name, which may hold blanks: fields 14 and 15 of the line are user and system.
        fields = self._stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB, 10^6 bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
