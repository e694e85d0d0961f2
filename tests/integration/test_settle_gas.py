"""Gas limits from the calibrated table hold what real payments use, with room to spare."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle.calibrate import calibrated, table_from
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.gas import USDC
from taprail_hwsim.dev_chain import DevChain
from tests.support.rpc_proxy import running_proxy
from tests.support.settle_shop import BALANCE_UNITS, Shop, blocks, open_shop

pytestmark = pytest.mark.chain

LEAST_ROOM = 1.03
MOST = 50


async def share_of_limit(
    shop: Shop, settlement: Settlement, payees: list[str], amount_units: int = 100
) -> float:
    """Settle a payment from a card of its own to each payee, all at once; gas limit ÷ gas used."""
    ids = []
    for card, payee in enumerate(payees):
        ids += await shop.sell(card=card, payee=payee, amount_units=amount_units)
    await settlement.sender.tick()
    await blocks(shop, settlement, 2)
    assert shop.states(ids) == {"completed": len(ids)}
    (tx_hash,) = {shop.payment(each).tx_hash for each in ids}
    used = int(shop.chain.node.call("eth_getTransactionReceipt", tx_hash)["gasUsed"], 16)
    limit = int(shop.chain.node.call("eth_getTransactionByHash", tx_hash)["gas"], 16)
    return limit / used


def payees(shop: Shop, count: int, new: int) -> list[str]:
    """So many who never had any tokens, and the merchant for the rest."""
    return ["0x" + secrets.token_hex(20) for _ in range(new)] + [shop.payee] * (count - new)


async def test_limits_hold_whatever_is_mixed_with_room(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(chain, ledger, tmp_path / "master.key", cards=MOST) as shop:
        chain.mint(shop.payee, 1)
        settlement = await shop.settlement()
        await settlement.calibrate()
        for count in (1, 2, 5, 10, 11, 25, MOST):
            for new in {0, count // 2, count}:
                room = await share_of_limit(shop, settlement, payees(shop, count, new))
                assert room >= LEAST_ROOM, (count, new, room)


async def test_fifty_first_recipients_of_all_that_fifty_payers_have_fit(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with open_shop(chain, ledger, tmp_path / "master.key", cards=MOST) as shop:
        settlement = await shop.settlement()
        await settlement.calibrate()
        await share_of_limit(shop, settlement, payees(shop, MOST, MOST), BALANCE_UNITS)


async def test_no_limit_of_a_transaction_is_ever_estimated(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with (
        open_shop(chain, ledger, tmp_path / "master.key") as shop,
        running_proxy(chain.rpc_url) as proxy,
    ):
        settlement = await shop.settlement(await shop.connect(proxy.url))
        proxy.answer(lambda _asked: 500, "eth_estimateGas", times=1_000)
        ids = await shop.sell(3)
        await settlement.sender.tick()
        await blocks(shop, settlement)
        assert shop.states(ids) == {"completed": 3}
        assert proxy.calls["eth_call"]
        assert not proxy.calls["eth_estimateGas"]


async def test_a_node_that_does_not_estimate_leaves_the_measured_figures(
    chain: DevChain, ledger: Ledger, tmp_path: Path
) -> None:
    async with (
        open_shop(chain, ledger, tmp_path / "master.key") as shop,
        running_proxy(chain.rpc_url) as proxy,
    ):
        connected = await shop.connect(proxy.url)
        proxy.answer(lambda _asked: 500, "eth_estimateGas")
        assert await calibrated(connected) == USDC
        assert await calibrated(connected) != USDC


@pytest.mark.parametrize(
    "figures",
    [
        (0, 0, 0),
        (86_000, 580_000, 2**60),
        (10**9, 580_000, 2_600_000),
        (86_000, 10**8, 1),
        (28_000, 190_000, 860_000),
    ],
)
def test_figures_that_cannot_be_right_are_not_believed(figures: tuple[int, int, int]) -> None:
    with pytest.raises(ChainError):
        table_from(*figures)
