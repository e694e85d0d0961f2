"""Two thousand requests by someone who means ill: none is accepted that should not be."""

from __future__ import annotations

import random
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from tests.attack.campaign import KINDS, Campaign
from tests.attack.doors import OverHttp, Straight
from tests.attack.victims import NEVER_SUSPICIOUS, Shop
from tests.support.gateway_fixtures import TestGateway, gateway_beside, running_gateway
from tests.support.ledger_fixtures import on_postgres


def attacked(
    folder: Path, ledger_url: str | None = None
) -> AbstractAsyncContextManager[TestGateway]:
    """A gateway that takes every kind of card."""
    return running_gateway(
        folder, accept_uid_cards=True, fraud=NEVER_SUSPICIOUS, ledger_url=ledger_url
    )


def finished(at: Campaign) -> None:
    assert at.problems == []
    assert at.audited() == []
    assert at.charged


async def test_two_thousand_attacks_move_no_money(tmp_path: Path) -> None:
    async with attacked(tmp_path) as gateway:
        shop, rng = Shop.open(gateway), random.Random(1)
        at = Campaign(shop, Straight(shop, rng, [gateway]), rng)
        await at.run(2_000)
        finished(at)
        await at.again_after_an_amnesty()
        finished(at)
        assert at.verdicts_of_others(200) == 200


@on_postgres
async def test_nor_do_they_between_two_gateways(tmp_path: Path, ledger_url: str) -> None:
    async with attacked(tmp_path, ledger_url) as first, gateway_beside(first, ledger_url) as second:
        shop, rng = Shop.open(first), random.Random(3)
        at = Campaign(shop, Straight(shop, rng, [first, second]), rng)
        await at.run(300)
        finished(at)


async def test_nor_do_they_over_http(tmp_path: Path) -> None:
    async with attacked(tmp_path) as gateway:
        at = Campaign(Shop.open(gateway), OverHttp([gateway]), random.Random(2))
        await at.run(250)
        assert set(at.played) == {kind.name for kind in KINDS}
        finished(at)
