"""Shows a view on lights, buzzer and display without ever holding up the sale.

Answers for: the newest view wins; each part is driven on a thread of its own, so that a slow or
dead display delays no light; a broken part becomes a line in the health and nothing else. What a
view looks like is decided in `scene`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from taprail_common.clock import Clock, SystemClock
from taprail_terminal.feedback import sounds
from taprail_terminal.feedback.drivers import Signals
from taprail_terminal.feedback.lights import TEST_DURATION_MS, TEST_LIGHTS, Lights
from taprail_terminal.feedback.messages import ENGLISH, Catalogue
from taprail_terminal.feedback.part_thread import PartThread, Player
from taprail_terminal.feedback.parts import PartHealth, not_fitted
from taprail_terminal.feedback.scene import Scene, Screen, scene, self_test_screen
from taprail_terminal.sale import Phase, View

# Phases without a customer who reads the front: only in these may a self-test be seen.
_QUIET: Final = frozenset({Phase.IDLE, Phase.READY, Phase.OUT_OF_SERVICE})
_DISPLAY_TEST_MS: Final = 500
_TEST_TIMEOUT_S: Final = 3.0

T = TypeVar("T")
OnShown = Callable[[View], None]


class Feedback:
    """Lights, buzzer and display of one terminal.

    `on_shown(view)` is called on a part's thread after lights and display have been driven to the
    view (or, broken, have been tried): hand it over to an event loop with call_soon_threadsafe.
    Views that a newer one overtook are not reported.
    """

    def __init__(
        self,
        signals: Signals,
        display: Player[Screen] | None,
        *,
        words: Catalogue = ENGLISH,
        on_shown: OnShown | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._words = words
        clock = clock or SystemClock()
        self._shown = _Shown(on_shown, _names(signals.lights, display))
        self._lights = _thread(signals.lights, clock, self._shown)
        self._display = _thread(display, clock, self._shown)
        self._buzzer = _thread(signals.buzzer, clock, None)
        self._clock = clock
        self._view: View | None = None
        self._since_s = 0.0

    def show(self, view: View) -> None:
        """Show the view as soon as the parts can; returns at once."""
        drawn = scene(view, self._words)
        ticket = self._shown.issue(view)
        if self._display is not None:  # first, since it takes longest
            self._display.put(drawn.screen, ticket)
        if self._lights is not None:
            self._lights.put(drawn.lights, ticket)
        self._sound(view, drawn)
        self._view, self._since_s = view, self._clock.monotonic_s()

    def now(self) -> tuple[Scene, int] | None:
        """What lights and display were last told to show, and for how many ms; whether they do is
        their health. None before the first view."""
        if self._view is None:
            return None
        elapsed_ms = round((self._clock.monotonic_s() - self._since_s) * 1000)
        return scene(self._view, self._words), elapsed_ms

    def health(self) -> dict[str, PartHealth]:
        """Each part as it was when last driven, by its name."""
        parts = {"lights": self._lights, "display": self._display, "buzzer": self._buzzer}
        return {name: part.health() if part else not_fitted(name) for name, part in parts.items()}

    async def test_lights(self) -> PartHealth:
        """Light each lamp in turn; a sale in progress is left alone."""
        return await self._test("lights", self._lights, TEST_LIGHTS, TEST_DURATION_MS)

    async def test_display(self) -> PartHealth:
        """Show a test picture for a moment; a sale in progress is left alone."""
        return await self._test(
            "display", self._display, self_test_screen(self._words), _DISPLAY_TEST_MS
        )

    async def test_buzzer(self) -> PartHealth:
        """Play three short tones; a sale in progress is left alone."""
        lasts_ms = sounds.duration_ms(sounds.TEST)
        return await self._test("buzzer", self._buzzer, sounds.TEST, lasts_ms)

    def close(self) -> None:
        """Everything dark and silent; bounded in time."""
        for part in (self._lights, self._display, self._buzzer):
            if part is not None:
                part.close()

    def _sound(self, view: View, drawn: Scene) -> None:
        """Sound once when something begins; what has no sound cuts off none."""
        begins = self._view is None or _occasion(self._view) != _occasion(view)
        if self._buzzer is not None and begins and drawn.sound:
            self._buzzer.put(drawn.sound)

    async def _test(
        self, name: str, part: PartThread[T] | None, order: T, lasts_ms: int
    ) -> PartHealth:
        if part is None:
            return not_fitted(name)
        if self._view is not None and self._view.phase not in _QUIET:
            return part.health()
        done = asyncio.wrap_future(part.interlude(order, lasts_ms))
        try:
            return await asyncio.wait_for(done, _TEST_TIMEOUT_S)
        except TimeoutError:
            fix = f"check the wires of the {name}; restart the terminal"
            return PartHealth(name, ok=False, detail="does not come back from its driver", fix=fix)


def _occasion(view: View) -> tuple[object, ...]:
    """What a sound is for."""
    return view.phase, view.late, view.left_behind


class _Shown:
    """Counts which view all of lights and display have reached."""

    def __init__(self, on_shown: OnShown | None, parts: tuple[str, ...]) -> None:
        self._on_shown = on_shown
        self._lock = threading.Lock()
        self._reached = dict.fromkeys(parts, 0)
        self._last: tuple[int, View] | None = None

    def issue(self, view: View) -> int:
        """A ticket for a new view; only the newest view's is ever reported."""
        with self._lock:
            ticket = 1 if self._last is None else self._last[0] + 1
            self._last = (ticket, view)
        if not self._reached and self._on_shown is not None:
            self._on_shown(view)
        return ticket

    def reached(self, part: str, ticket: int) -> None:
        """A part has carried out the view of this ticket."""
        with self._lock:
            self._reached[part] = ticket
            last = self._last
            complete = last is not None and all(t == last[0] for t in self._reached.values())
        if complete and last is not None and self._on_shown is not None:
            self._on_shown(last[1])


def _names(*players: Player[Lights] | Player[Screen] | None) -> tuple[str, ...]:
    return tuple(player.name for player in players if player is not None)


def _thread(player: Player[T] | None, clock: Clock, shown: _Shown | None) -> PartThread[T] | None:
    if player is None:
        return None
    if shown is None:
        return PartThread(player, clock)
    return PartThread(player, clock, lambda ticket: shown.reached(player.name, ticket))
