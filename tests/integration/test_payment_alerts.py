"""A dear payment that the chain does not carry out is flagged for a person, a cheap one is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from taprail_gateway.ledger import alerts
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.payment_alerts import FAILED_ALERT
from taprail_gateway.ledger.schema import REFUSED_AFTER
from taprail_gateway.settle.judge import PROOF_DEPTH
from taprail_hwsim.dev_chain import DevChain
from tests.support import eip3009
from tests.support.settle_shop import BALANCE_UNITS, blocks, open_shop

pytestmark = pytest.mark.chain

STRANGER = "0x" + "57" * 20


async def test_what_the_chain_refuses_for_good_is_flagged_if_it_is_dear(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    validity_s = 60
    async with open_shop(
        chain, ledger, tmp_path / "master.key", authorization_validity_s=validity_s
    ) as shop:
        [dear] = await shop.sell(priority=10)
        [cheap] = await shop.sell(priority=5)
        shop.execute(
            shop.authorization(eip3009.nonce(1), payee=STRANGER, amount_units=BALANCE_UNITS)
        )
        settlement = await shop.settlement()
        for _ in range(REFUSED_AFTER):
            await settlement.sender.tick()
            shop.clock.ahead_ms += 60_000
        chain.advance_time(validity_s + 600)
        await blocks(shop, settlement, PROOF_DEPTH + 2)
        assert shop.states([dear, cheap]) == {"failed": 2}
        found = ledger.read_now(lambda c: alerts.open_alerts(c, only_review=True))
        assert [(each.kind, each.subject) for each in found] == [(FAILED_ALERT, dear)]
        assert "balance does not cover it" in found[0].text
        shop.assert_books_balance()
