"""Five hundred taps, two in five of them with a fault: nothing twice, nothing lost, no green that
was not earned, no terminal that stays stuck."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from taprail_hwsim.faults import FAULTS
from taprail_hwsim.pads import pn532_pad
from tests.attack.victims import NEVER_SUSPICIOUS
from tests.support.gateway_fixtures import running_gateway
from tests.support.tap_shop import Book, counters, tap_all

pytestmark = pytest.mark.e2e

TAPS = 500
COUNTERS = 5
MOST_TURNED_AWAY = 0.02


async def test_five_hundred_taps_with_faults(tmp_path: Path) -> None:
    book = Book()
    with ExitStack() as exits:
        folders = [tmp_path / f"pad{number}" for number in range(COUNTERS)]
        for folder in folders:
            folder.mkdir()
        pads = [exits.enter_context(pn532_pad(folder)) for folder in folders]
        async with (
            running_gateway(tmp_path, fraud=NEVER_SUSPICIOUS) as gateway,
            counters(tmp_path, gateway, list(pads), 1, book) as made,
        ):
            await tap_all(made, 1, TAPS)
    assert book.problems == []
    assert book.total == TAPS
    assert book.turned_away <= TAPS * MOST_TURNED_AWAY
    assert set(book.taps) >= {name for name, it in FAULTS.items() if "pn532" in it.readers}
