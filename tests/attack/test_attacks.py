"""Two thousand requests by someone who means ill: none is accepted that should not be."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.attack.campaign import KINDS, Campaign
from tests.attack.doors import OverHttp, Straight
from tests.attack.victims import NEVER_SUSPICIOUS, Shop
from tests.support.gateway_fixtures import running_gateway


@asynccontextmanager
async def campaign(folder: Path, seed: int, *, http: bool) -> AsyncIterator[Campaign]:
    async with running_gateway(folder, accept_uid_cards=True, fraud=NEVER_SUSPICIOUS) as gateway:
        shop, rng = Shop.open(gateway), random.Random(seed)
        door = OverHttp([gateway]) if http else Straight(shop, rng, [gateway])
        yield Campaign(shop, door, rng)


def finished(at: Campaign) -> None:
    assert at.problems == []
    assert at.audited() == []
    assert at.charged


async def test_two_thousand_attacks_move_no_money(tmp_path: Path) -> None:
    async with campaign(tmp_path, seed=1, http=False) as at:
        await at.run(2_000)
        finished(at)
        await at.again_after_an_amnesty()
        finished(at)
        assert at.verdicts_of_others(200) == 200


async def test_nor_do_they_over_http(tmp_path: Path) -> None:
    async with campaign(tmp_path, seed=2, http=True) as at:
        await at.run(250)
        assert set(at.played) == {kind.name for kind in KINDS}
        finished(at)
