"""Which heartbeats are written: the news at once, the rest now and then; and who is silent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taprail_gateway.diagnosis import FOUND_WITHIN_MS, Stage, stage
from taprail_gateway.heartbeats import (
    MAX_AT_ONCE,
    REWRITTEN_AFTER_MS,
    SILENT_AFTER_MS,
    Beat,
    Heartbeats,
)
from taprail_gateway.ledger.fleet import DIAGNOSED_WITHIN_MS, Diagnosis

NOW_MS = 1_800_000_000_000
BEAT = Beat("t1", NOW_MS, "0.1.0", "idle", True, "PN532 1.6", 1, 2, 60, -7, 0)


def later(ms: int, **changes: object) -> Beat:
    at = replace(BEAT, heard_at_ms=NOW_MS + ms, uptime_s=60 + ms // 1000, clock_offset_ms=ms % 9)
    return replace(at, **changes)  # type: ignore[arg-type]  # of the fields' own types


def test_what_says_nothing_new_is_written_twice_a_minute() -> None:
    beats = Heartbeats()
    beats.hear(BEAT)
    assert beats.due() == [BEAT]
    beats.wrote(beats.due())
    for ms in range(1_000, REWRITTEN_AFTER_MS, 1_000):
        beats.hear(later(ms))
        assert beats.due() == []
    beats.hear(later(REWRITTEN_AFTER_MS))
    assert beats.due() == [later(REWRITTEN_AFTER_MS)]


@pytest.mark.parametrize(
    "news", [{"reader_ok": False}, {"unresolved": 0}, {"config_version": 1}, {"phase": "ready"}]
)
def test_news_is_written_at_once_and_comes_first(news: dict[str, object]) -> None:
    beats = Heartbeats()
    others = [replace(BEAT, terminal_id=f"x{number}") for number in range(MAX_AT_ONCE)]
    for each in (BEAT, *others):
        beats.hear(each)
    beats.wrote([BEAT, *others])
    for each in others:
        beats.hear(replace(each, heard_at_ms=NOW_MS + REWRITTEN_AFTER_MS))
    changed = later(1_000, **news)
    beats.hear(changed)
    due = beats.due()
    assert (len(due), due[0]) == (MAX_AT_ONCE, changed)


def test_a_terminal_is_silent_after_a_minute_and_a_half() -> None:
    assert not BEAT.is_silent(NOW_MS + SILENT_AFTER_MS)
    assert BEAT.is_silent(NOW_MS + SILENT_AFTER_MS + 1)
    assert BEAT.unconfirmed == 3


def test_a_diagnosis_ends_by_a_report_or_by_the_clock() -> None:
    asked = Diagnosis("t1", "diag_1", NOW_MS, NOW_MS + DIAGNOSED_WITHIN_MS)
    told = replace(asked, told_at_ms=NOW_MS + 5)
    answered = replace(told, report="{}", answered_at_ms=NOW_MS + 9)
    at = [0, FOUND_WITHIN_MS - 1, FOUND_WITHIN_MS, DIAGNOSED_WITHIN_MS]
    assert [stage(asked, NOW_MS + ms) for ms in at] == [
        *(Stage.WAITING, Stage.WAITING),
        *(Stage.AWAY, Stage.AWAY),
    ]
    assert [stage(told, NOW_MS + ms) for ms in at] == [
        *(Stage.WAITING, Stage.WAITING),
        *(Stage.WAITING, Stage.LATE),
    ]
    assert {stage(answered, NOW_MS + ms) for ms in at} == {Stage.ANSWERED}
