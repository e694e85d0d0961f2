"""The panel of a terminal that runs in another process: its picture, its lights, its beeps."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from taprail_hwsim.panel.display import Ssd1306Panel
from taprail_hwsim.panel.lights import BUZZER, EDGES_KEPT, Beep, Edge, beeps_of
from taprail_hwsim.panel.link import NO_FREQUENCY, PanelSocket

_TURNS = 10


@dataclass(frozen=True)
class Lamp:
    """One change of a light."""

    at_s: float
    name: str
    duty: float


class RemotePanel:
    """Listens on a Unix socket for the wires of one terminal; `pins` maps names to BCM numbers."""

    def __init__(self, path: Path, pins: Mapping[str, int]) -> None:
        self.display = Ssd1306Panel()
        self._names = {number: name for name, number in pins.items()}
        self._edges: dict[str, deque[Edge]] = defaultdict(lambda: deque(maxlen=EDGES_KEPT))
        self.lamps: deque[Lamp] = deque(maxlen=EDGES_KEPT)
        self.frame_at_s = 0.0
        self.on_edge: Callable[[str, Edge], None] | None = None
        """Called with the name of a light or the buzzer at each change."""
        self._socket = PanelSocket(
            path, on_command=self._command, on_data=self._data, on_pin=self._pin
        )

    async def start(self) -> None:
        """Listen; call before the terminal starts."""
        await self._socket.start()

    async def close(self) -> None:
        """Stop listening; the last picture stays readable."""
        await self._socket.close()

    async def caught_up(self) -> None:
        """Let what the terminal has sent already arrive here.

        Its bytes lie in this process's socket before any later event of the terminal does, so a
        few turns of the loop are enough to read them.
        """
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def lights(self) -> dict[str, bool]:
        """Which lights are on now, all of them by name."""
        return {name: self._is_on(name) for name in self._names.values() if name != BUZZER}

    def beeps(self) -> list[Beep]:
        """All tones so far, oldest first."""
        return beeps_of(self._edges[BUZZER], time.monotonic())

    def _is_on(self, name: str) -> bool:
        edges = self._edges[name]
        return bool(edges) and edges[-1].duty > 0

    def _command(self, _at_s: float, payload: bytes) -> None:
        self.display.command(*payload)

    def _data(self, at_s: float, payload: bytes) -> None:
        self.display.data(payload)
        self.frame_at_s = at_s

    def _pin(self, at_s: float, pin: int, duty: float, frequency_hz: float) -> None:
        name = self._names.get(pin)
        if name is None:
            return  # a pin that no part of the panel is wired to
        frequency = None if frequency_hz == NO_FREQUENCY else frequency_hz
        edge = Edge(at_s, duty, frequency)
        self._edges[name].append(edge)
        if self.on_edge is not None:
            self.on_edge(name, edge)
        if name != BUZZER:
            self.lamps.append(Lamp(at_s, name, duty))
