"""One look at everything that moves: sale, reader, lights, display, queue and the last taps.

Answers for being cheap enough to be asked once a second over a serial line, beside running taps:
nothing is read from the disk but the queue's count, no part is touched, and the picture is the one
that the display was given. The lights travel as patterns, so that whoever draws them can let them
blink without asking again.
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Sequence
from typing import Any, Final

from taprail_common.clock import rfc3339
from taprail_terminal.console.answers import CommandResult, facts
from taprail_terminal.console.desk import Desk
from taprail_terminal.feedback.scene import Scene, Screen

_TAPS: Final = 6
_BEST: Final = 9
"""zlib's level: a screen of text shrinks from 1024 bytes to some 300, within a millisecond."""


async def live(desk: Desk, _args: Sequence[str]) -> CommandResult:
    """What the terminal does and shows this moment."""
    probes = desk.probes
    reader, stats, shown = probes.reader.health(), await probes.outbox.stats(), None
    drawn = probes.feedback.now()
    if drawn is not None:
        shown = await asyncio.to_thread(_shown, *drawn)
    parts = [reader, *probes.feedback.health().values()]
    data: dict[str, Any] = {
        "terminalId": probes.terminal_id,
        "at": rfc3339(desk.clock.now_ms()),
        "phase": probes.sale.phase(),
        "gateway": {"inReach": desk.link.reachable},
        "parts": [
            {"name": each.name, "ok": each.ok, "detail": each.detail, "whatToDo": each.fix}
            for each in parts
        ],
        "shown": shown,
        "queue": {"unresolved": stats.unresolved, "oldestMs": stats.oldest_age_ms},
        "taps": [_tap(each) for each in desk.taps.recent(_TAPS)],
    }
    known = {
        "phase": data["phase"],
        "display": "-" if drawn is None else " / ".join(_words(drawn[0].screen)),
        "lights": "-" if drawn is None else _lamps(*drawn),
        "in reach": desk.link.reachable,
        "unresolved": stats.unresolved,
    }
    is_ok = all(each.ok for each in parts)
    return CommandResult(facts(known, ok=is_ok).exit_code, facts(known).text, data)


def _shown(scene: Scene, elapsed_ms: int) -> dict[str, Any]:
    from taprail_terminal.feedback.screens import HEIGHT_PX, WIDTH_PX, render

    packed = zlib.compress(render(scene.screen).tobytes(), _BEST)
    return {
        "elapsedMs": elapsed_ms,
        "lights": [
            [each.period_ms, each.on_ms, each.offset_ms] for each in scene.lights.patterns()
        ],
        "words": _words(scene.screen),
        "picture": {
            "widthPx": WIDTH_PX,
            "heightPx": HEIGHT_PX,
            "zlib": base64.b64encode(packed).decode("ascii"),
        },
    }


def _words(screen: Screen) -> list[str]:
    words = (screen.amount, screen.currency, screen.headline, *screen.lines, screen.lift_card)
    return [each for each in words if each]


def _lamps(scene: Scene, elapsed_ms: int) -> str:
    return "".join("*" if lit else "." for lit in scene.lights.lit(elapsed_ms))


def _tap(trace: dict[str, Any]) -> dict[str, Any]:
    return {
        "at": rfc3339(trace["atMs"]),
        "outcome": trace["outcome"],
        "reason": trace["reason"],
        "stagesMs": trace["stagesMs"],
    }
