"""Each setting of settlement takes effect on one that runs, as soon as an operator has set it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from sqlalchemy import select

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.settle import tuning
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.fees import WEI_PER_GWEI
from taprail_gateway.settle.live import LOOK_EVERY_S, LiveSettings
from taprail_hwsim.dev_chain import DevChain
from tests.support.settle_shop import WAIT_S, Shop, blocks, open_shop, until_settled

pytestmark = pytest.mark.chain

A_MINUTE_MS: Final = 60_000
"""Longer than any test may wait."""


@pytest_asyncio.fixture
async def shop(chain: DevChain, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Shop]:
    """On a chain whose blocks come by the test's hand alone."""
    chain.node.call("evm_setIntervalMining", 0)
    async with open_shop(chain, ledger, tmp_path / "master.key") as opened:
        yield opened
    chain.node.call("evm_setIntervalMining", 1)  # no part of the state that the chain goes back to


async def set_by_operator(shop: Shop, **values: object) -> None:
    """What `taprail admin settings set` does, in a process of its own."""
    by = By("cli:test", shop.clock.now_ms())
    await shop.ledger.write(lambda c: tuning.change(c, shop.settings, values, by))


async def set_at_work(shop: Shop, settlement: Settlement, **values: object) -> None:
    await set_by_operator(shop, **values)
    await settlement.follow_settings()


def loads(shop: Shop, ids: list[str]) -> list[int]:
    """How many of the payments travel in each transaction."""
    return sorted(Counter(shop.payment(each).chain_transaction_id for each in ids).values())


def last_fees(shop: Shop) -> tuple[int, int]:
    """What the newest transaction offers for gas: at most, and as a tip."""
    a = schema.attempts.c
    newest = select(a.max_fee_wei, a.priority_fee_wei).order_by(a.chain_transaction_id.desc())
    row = shop.ledger.read_now(lambda c: c.execute(newest.limit(1)).one())
    return row[0], row[1]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what rings no bell."""
    async with asyncio.timeout(WAIT_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


# --- one by one, the loops turned by hand ---------------------------------------------------------


async def payment_batch_size(shop: Shop, settlement: Settlement) -> None:
    await set_at_work(shop, settlement, payment_batch_size=2)
    ids = await shop.sell(4)
    await settlement.sender.tick()
    assert loads(shop, ids)[-1] == 2


async def payments_per_transaction(shop: Shop, settlement: Settlement) -> None:
    await set_at_work(shop, settlement, payments_per_transaction=3)
    ids = await shop.sell(6)
    await settlement.sender.tick()
    assert loads(shop, ids) == [3, 3]


async def max_in_flight_payments(shop: Shop, settlement: Settlement) -> None:
    await set_at_work(shop, settlement, max_in_flight_payments=2, payments_per_transaction=2)
    ids = await shop.sell(6)
    for _ in range(3):
        await settlement.sender.tick()
    assert shop.states(ids) == {"sent": 2, "pending": 4}
    await set_at_work(shop, settlement, max_in_flight_payments=100)
    for _ in range(3):
        await settlement.sender.tick()
    assert shop.states(ids) == {"sent": 6}


async def authorization_validity_s(shop: Shop, settlement: Settlement) -> None:
    first = await shop.sell()
    await settlement.sender.tick()
    await blocks(shop, settlement)
    await set_at_work(shop, settlement, authorization_validity_s=3_600)
    second = await shop.sell()
    await settlement.sender.tick()
    until_s = [shop.payment(each).signed_until_s for each in first + second]
    # Counted from a block's time, and the two blocks are seconds apart at most.
    assert until_s[1] - until_s[0] >= 3_600 - 600


async def max_fee_cap_gwei(shop: Shop, settlement: Settlement) -> None:
    offers_wei = []
    for cap_gwei in (500.0, 12.5):
        await set_at_work(shop, settlement, max_fee_cap_gwei=cap_gwei)
        shop.chain.set_next_block_base_fee(10 * WEI_PER_GWEI)
        await blocks(shop, settlement)
        await shop.sell()
        await settlement.sender.tick()
        offers_wei.append(last_fees(shop)[0])
    assert offers_wei[0] > offers_wei[1] == 12_500_000_000


async def priority_fee_gwei(shop: Shop, settlement: Settlement) -> None:
    await set_at_work(shop, settlement, priority_fee_gwei=7.5)
    await shop.sell()
    await settlement.sender.tick()
    assert last_fees(shop)[1] == 7_500_000_000


EFFECTS: Final[dict[str, Callable[[Shop, Settlement], Awaitable[None]]]] = {
    effect.__name__: effect
    for effect in (
        payment_batch_size,
        payments_per_transaction,
        max_in_flight_payments,
        authorization_validity_s,
        max_fee_cap_gwei,
        priority_fee_gwei,
    )
}
TESTED_ELSEWHERE: Final = {
    "payment_batch_interval_ms": "below",
    "confirmation_interval_ms": "below",
    "confirmation_batch_size": "test_confirm_depths",
    "confirmations": "test_confirm_depths",
    "confirmation_timeout_s": "test_confirm_depths",
    "reset_stuck_after_s": "test_admin_queue: a command asks for it, no loop does",
}


@pytest.mark.parametrize("name", EFFECTS)
async def test_a_setting_takes_effect_without_a_restart(shop: Shop, name: str) -> None:
    await EFFECTS[name](shop, await shop.settlement())


def test_no_setting_is_left_out() -> None:
    assert set(tuning.names()) == EFFECTS.keys() | TESTED_ELSEWHERE.keys()


# --- those that a loop sleeps by ------------------------------------------------------------------


async def test_a_send_loop_that_waits_is_woken_by_a_shorter_interval(shop: Shop) -> None:
    settlement = await shop.settlement(payment_batch_interval_ms=A_MINUTE_MS)
    await settlement.start()
    try:
        await until_settled(shop, await shop.sell(), PaymentState.SENT)
        more = await shop.sell()  # waits with the first one for a block, which does not come
        await set_by_operator(shop, payment_batch_interval_ms=100)
        await until_settled(shop, more, PaymentState.SENT)
    finally:
        await settlement.stop()


async def test_a_confirm_loop_that_rests_is_woken_by_a_shorter_interval(shop: Shop) -> None:
    settlement = await shop.settlement(confirmation_interval_ms=A_MINUTE_MS)
    await settlement.start()
    try:
        await until(lambda: shop.balance()[1] == shop.chain.block_number())
        shop.chain.mint(shop.account(), 5)
        await set_by_operator(shop, confirmation_interval_ms=100)
        await until(lambda: shop.balance()[1] == shop.chain.block_number())
    finally:
        await settlement.stop()


# --- all of them ----------------------------------------------------------------------------------


async def test_a_running_settlement_goes_by_every_change(shop: Shop) -> None:
    live = LiveSettings(shop.settings)
    chain = await shop.connect()
    settlement = Settlement(shop.ledger, chain, shop.custody, live, shop.clock, shop.wakeups)
    await settlement.start()
    others = {"confirmations": "finalized", "max_fee_cap_gwei": 77.5, "priority_fee_gwei": 3.5}
    wanted = {name: others.get(name, 100) for name in tuning.names()}
    try:
        await set_by_operator(shop, **wanted)
        await until(lambda: live.now.model_dump() == wanted)
        await set_by_operator(shop, **dict.fromkeys(wanted))
        await until(lambda: live.now == live.base)
    finally:
        await settlement.stop()


def test_two_looks_are_less_than_a_second_apart() -> None:
    assert LOOK_EVERY_S <= 0.5
