"""Named lights and beeps out of gpiozero's mock pins.

Answers for turning edges of pins into what a person sees and hears. What a pattern means is the
terminal's matter. `PanelPin` adds to gpiozero's mock pin what its history lacks: absolute times and
the PWM frequency, which is the pitch of a beep.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from gpiozero import Device
from gpiozero.pins.mock import MockFactory, MockPWMPin

BUZZER: Final = "buzzer"
EDGES_KEPT: Final = 20_000  # per pin: hours of blinking, and a soak's memory stays flat


@dataclass(frozen=True)
class Edge:
    """A pin from `at_s` (monotonic) on: duty 0 to 1, and the PWM frequency when one is known."""

    at_s: float
    duty: float
    frequency_hz: float | None = None


@dataclass(frozen=True)
class Beep:
    """A tone of the buzzer; the last one may still sound."""

    start_s: float
    duration_s: float
    frequency_hz: float | None


class PanelPin(MockPWMPin):  # type: ignore[misc]  # gpiozero ships no types
    """A mock PWM pin that remembers every edge with time and frequency."""

    def __init__(self, factory: Any, info: Any) -> None:
        self.history: deque[Edge] = deque(maxlen=EDGES_KEPT)
        super().__init__(factory, info)

    def _change_state(self, value: float) -> bool:
        changed = bool(super()._change_state(value))
        if changed:
            del self.states[:-EDGES_KEPT]
            self._note()
        return changed

    def _set_frequency(self, value: float | None) -> None:
        changed = value != self._frequency
        super()._set_frequency(value)
        if changed and value is not None:  # a pitch may change while the tone goes on
            self._note()

    def _note(self) -> None:
        self.history.append(Edge(time.monotonic(), float(self._state), self._frequency))


def panel_factory() -> MockFactory:
    """A pin factory whose pins a `GpioPanel` can read in full; set it as `Device.pin_factory`."""
    return MockFactory(pin_class=PanelPin)


class GpioPanel:
    """The lights and the buzzer on named pins, for instance {"light1": 5, "red": 6, "buzzer": 12}.

    Reads pins of `factory`, by default gpiozero's current one. With gpiozero's plain `MockPWMPin`
    everything works but the pitch of past beeps, which that pin does not keep.
    """

    def __init__(self, pins: Mapping[str, int], factory: MockFactory | None = None) -> None:
        chosen = Device.pin_factory if factory is None else factory
        if not isinstance(chosen, MockFactory):
            raise TypeError("the panel needs gpiozero's MockFactory as pin factory")
        self._pins = {name: chosen.pin(number) for name, number in pins.items()}

    def lights(self) -> dict[str, bool]:
        """Which lights are on now; the buzzer is not a light."""
        return {name: pin.state > 0 for name, pin in self._pins.items() if name != BUZZER}

    def history(self) -> list[tuple[float, str, float]]:
        """(monotonic seconds, name, duty 0 to 1) of all changes, oldest first, buzzer included."""
        changes = [
            (edge.at_s, name, edge.duty)
            for name, pin in self._pins.items()
            for edge in duty_changes(edges_of(pin))
        ]
        return sorted(changes)

    def beeps(self) -> list[tuple[float, float, float | None]]:
        """(start, duration in seconds, frequency in Hz or None); a sounding one lasts until now."""
        if BUZZER not in self._pins:
            return []
        found = beeps_of(edges_of(self._pins[BUZZER]), time.monotonic())
        return [(beep.start_s, beep.duration_s, beep.frequency_hz) for beep in found]


def edges_of(pin: MockPWMPin) -> list[Edge]:
    """The edges of a mock pin with absolute times."""
    if isinstance(pin, PanelPin):
        return list(pin.history)
    # gpiozero keeps the time since the change before; only the last change is known absolutely.
    last_s, states = pin._last_change, list(pin.states)
    total_s = sum(state.timestamp for state in states)
    times = accumulate(state.timestamp for state in states)
    started_s = last_s - total_s
    return [
        Edge(started_s + at_s, float(state.state))
        for at_s, state in zip(times, states, strict=True)
    ][1:]


def duty_changes(edges: Iterable[Edge]) -> list[Edge]:
    """The edges at which the duty changed; a pin starts at 0."""
    found: list[Edge] = []
    duty = 0.0
    for edge in edges:
        if edge.duty != duty:
            found.append(edge)
            duty = edge.duty
    return found


def beeps_of(edges: Iterable[Edge], now_s: float) -> list[Beep]:
    """Tones: one begins, or changes its pitch, at an edge and ends at the next such edge."""
    found: list[Beep] = []
    sounding: Edge | None = None
    for edge in edges:
        if sounding is not None:
            if edge.duty > 0 and edge.frequency_hz == sounding.frequency_hz:
                continue  # louder or softer is the same tone
            found.append(_beep(sounding, edge.at_s))
        sounding = edge if edge.duty > 0 else None
    if sounding is not None:
        found.append(_beep(sounding, now_s))
    return found


def _beep(edge: Edge, until_s: float) -> Beep:
    return Beep(edge.at_s, until_s - edge.at_s, edge.frequency_hz)
