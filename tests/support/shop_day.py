"""A shop's day with whatever may come, its loops turned by hand, and the judgement on it.

The chain's blocks come by hand as well: a day is as fast as its steps. What a gateway leaves behind
that died in the middle of it is finished by a fresh one, and judged by the chain's transfers.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from taprail_common.clock import SystemClock
from taprail_common.errors import TapRailError
from taprail_common.payment_state import PaymentState
from taprail_gateway import registry
from taprail_gateway.callbacks.dispatcher import Dispatcher
from taprail_gateway.callbacks.handlers import CallbackHandler, Work
from taprail_gateway.callbacks.kinds import callback_lines
from taprail_gateway.callbacks.reward import RewardHandler
from taprail_gateway.ledger import nonces, outbox, queries, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.outbox import Callback
from taprail_gateway.ledger.schema import REFUSED_AFTER
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.judge import PROOF_DEPTH
from taprail_gateway.settle.live import LiveSettings
from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.rpc_proxy import RpcProxy
from tests.support import eip3009
from tests.support.reward_shop import RewardShop, open_reward_shop
from tests.support.settle_shop import ETHER, Shop, still_open

AMOUNT_UNITS: Final = 100
TRICKSTER: Final = 0
"""The card whose holder moves its money behind the gateway's back; the others are honest."""
DEEPEST_REORG: Final = 6
_STRANGER: Final = "0x" + "57" * 20
_TOP_UP_UNITS: Final = 10_000
_LONGEST_REST_MS: Final = 60_000
"""Between two tries."""
_GWEI: Final = 10**9
LONGEST_DAY_MS: Final = 3_600_000
"""A day's own clock dies with it, wherever it stood; the next one begins after it."""
LIFE_S: Final = 60.0
"""For a day that would otherwise last for ever."""
BLOCKS_TO_SETTLE: Final = 10
"""After the end of whatever has come: by then nothing honest may be open."""
_ROUNDS_OF_PROOF: Final = 3
"""Proofs that a payment may need: what has expired by one goes round again, and is refused then."""


class Deaf:
    """A receiver of callbacks that is never there."""

    states: Collection[PaymentState] = (PaymentState.COMPLETED,)
    at_once = 10

    async def handle(self, callback: Callback) -> Work:
        raise TapRailError(f"nobody hears of {callback.payment_id}")


@dataclass
class Day:
    """One gateway's day: its loops are turned by hand."""

    rewarding: RewardShop
    settlement: Settlement
    dispatcher: Dispatcher
    proxy: RpcProxy
    random: random.Random

    @property
    def shop(self) -> Shop:
        return self.rewarding.shop

    @property
    def chain(self) -> DevChain:
        return self.rewarding.shop.chain

    async def sell(self, card: int | None = None) -> list[str]:
        """Some payments, of an honest card unless one is named."""
        chosen = self.random.choice((1, 2)) if card is None else card
        return await self.shop.sell(
            self.random.randint(1, 8), amount_units=AMOUNT_UNITS, card=chosen
        )

    async def sell_to_the_trickster(self) -> list[str]:
        """His card has been topped up, should he have emptied it before."""
        self.chain.mint(self.shop.account(TRICKSTER), _TOP_UP_UNITS)
        await self.turn()
        return await self.sell(card=TRICKSTER)

    async def send(self) -> None:
        """All lanes do a step; what the chain refuses is part of the day."""
        for sender in list(self.settlement.senders.values()):
            with contextlib.suppress(TapRailError):
                await sender.tick()

    async def look(self) -> None:
        """Everybody looks at the chain, and tells of it."""
        with contextlib.suppress(TapRailError):
            await self.settlement.confirmer.tick()
        if self.settlement.rewards is not None:
            with contextlib.suppress(TapRailError):
                await self.settlement.rewards.tick()
        await self.dispatcher.tick()

    async def turn(self, count: int = 1, *, wait_ms: int = 500) -> None:
        """Send, a block, look; as often as that."""
        for _ in range(count):
            self.shop.clock.ahead_ms += wait_ms
            await self.send()
            self.chain.mine()
            await self.look()

    async def refuse_to_the_end(self) -> None:
        """Try out what waits as often as it ever is."""
        await self.turn(REFUSED_AFTER, wait_ms=_LONGEST_REST_MS)

    async def past_the_proof(self) -> None:
        """Let all that was signed end, and be buried as deep as a proof wants it.

        What is signed ends by the later of two clocks, ours and the chain's.
        """
        behind_s = self.shop.clock.now_ms() // 1000 - self.chain.block_time_s()
        self.chain.advance_time(max(0, behind_s) + self.shop.settings.authorization_validity_s + 1)
        await self.turn()
        self.chain.mine(PROOF_DEPTH)
        await self.turn()


@asynccontextmanager
async def shop_of_a_day(
    chain: DevChain, ledger_url: str, key_file: Path, lanes: int = 2
) -> AsyncIterator[RewardShop]:
    """A shop whose blocks come by hand, and whose ledger is free for another process."""
    chain.node.call("evm_setIntervalMining", 0)
    ledger = Ledger.open(ledger_url, clock=SystemClock())
    await ledger.start()
    try:
        async with open_reward_shop(chain, ledger, key_file, lanes=lanes) as opened:
            await ledger.close()
            chain.mine(DEEPEST_REORG)  # over what no reorg is to undo
            yield opened
    finally:
        # Neither is part of the state that a chain goes back to after a test.
        chain.node.call("evm_setIntervalMining", 1)
        chain.set_next_block_base_fee(_GWEI)
        chain.mine()


@asynccontextmanager
async def dawn(
    rewarding: RewardShop, seed: int, *, rpc_timeout_ms: int = 5_000
) -> AsyncIterator[Day]:
    """A gateway that has just started, with all that it needs."""
    shop = rewarding.shop
    handlers: dict[str, CallbackHandler] = {
        "reward": RewardHandler(rewarding.settings),
        "deaf": Deaf(),
    }
    wanted = {kind: handler.states for kind, handler in handlers.items()}
    await shop.ledger.write(partial(outbox.enable, wanted=wanted))
    async with RpcProxy(shop.chain.rpc_url, seed=seed) as proxy:
        settlement = Settlement(
            shop.ledger,
            await shop.connect(proxy.url, rpc_timeout_ms=rpc_timeout_ms),
            shop.custody,
            LiveSettings(shop.settings),
            shop.clock,
            shop.wakeups,
            rewards_contract=rewarding.points.address,
        )
        await settlement.take_lanes()
        chance = random.Random(seed)
        lines = callback_lines(handlers, shop.ledger, shop.clock, chance)
        dispatcher = Dispatcher(shop.ledger, lines, shop.clock, shop.wakeups, chance)
        await dispatcher.take_lease()
        yield Day(rewarding, settlement, dispatcher, proxy, random.Random(seed))


# --- what may come --------------------------------------------------------------------------------


async def business(day: Day) -> None:
    """Nothing else comes."""
    await day.sell()
    await day.turn(3)


async def emptied_account(day: Day) -> None:
    """A customer pays, and his money has gone elsewhere before it is asked for."""
    await day.sell_to_the_trickster()
    shop = day.shop
    left = shop.chain.balance_of(shop.account(TRICKSTER))
    if left:
        away = shop.authorization(
            eip3009.nonce(day.random.getrandbits(31)),
            card=TRICKSTER,
            payee=_STRANGER,
            amount_units=left,
        )
        shop.execute(away)
    await day.sell()
    await day.refuse_to_the_end()
    await day.past_the_proof()


async def cancelled(day: Day) -> None:
    """A holder cancels what is on its way already."""
    shop = day.shop
    bad = await day.sell_to_the_trickster()
    await day.send()
    day.chain.node.call("anvil_dropAllTransactions")
    for each in bad:
        call = eip3009.cancel_call_data(day.chain, shop.holder(TRICKSTER), each)
        day.chain.send(day.chain.accounts[2], day.chain.token_address, call)
    await day.turn(5)
    await day.past_the_proof()


async def poor_lanes(day: Day) -> None:
    """The wallets have nothing for gas until somebody tops them up."""
    await day.turn()
    for lane in day.shop.lanes:
        day.chain.fund(lane, 0)
    await day.sell()
    await day.turn(2)
    for lane in day.shop.lanes:
        day.chain.fund(lane, 100 * ETHER)
    await day.turn(3)


async def reorg(day: Day) -> None:
    """The last blocks are gone, and their transactions with them."""
    await reorg_of(day, day.random.randint(1, DEEPEST_REORG))


async def reorg_of(day: Day, depth: int) -> bool:
    """So many blocks, each with payments unless a fault has kept them out; whether it undid any."""
    for _ in range(depth):
        await day.sell()
        await day.turn()
    before = len(day.chain.transfers(day.shop.payee))
    day.chain.reorg(depth)
    has_undone = len(day.chain.transfers(day.shop.payee)) < before
    _fund_all(day.rewarding)
    await day.turn(3)
    return has_undone


async def no_logs(day: Day) -> None:
    """A node that gives no logs."""
    rules = day.proxy.inject("http_502@eth_getLogs")
    await day.sell()
    await day.turn(3)
    day.proxy.withdraw(rules)


async def fee_spike(day: Day) -> None:
    """The base fee leaves what is on its way behind."""
    await day.turn()
    await day.sell()
    await day.send()
    head = day.chain.node.call("eth_getBlockByNumber", "latest", False)
    day.chain.set_next_block_base_fee(10 * int(head["baseFeePerGas"], 16) + 10 * _GWEI)
    await day.turn(8)


async def another_lane(day: Day) -> None:
    """An operator adds a wallet to send from."""
    shop = day.shop
    add = partial(
        registry.add_lane, custody=shop.custody, purpose="payments", now_ms=shop.clock.now_ms()
    )
    lane = await shop.ledger.write(add)
    day.chain.fund(lane, 100 * ETHER)
    shop.lanes.append(lane)
    await day.settlement.take_lanes()
    await business(day)


Event = Callable[[Day], Awaitable[None]]


EVENTS: Final[dict[str, Event]] = {
    event.__name__: event
    for event in (
        *(business, emptied_account, cancelled, poor_lanes),
        *(reorg, no_logs, fee_spike, another_lane),
    )
}


MET_ON: Final = {"bump_rule": fee_spike.__name__}
"""What has to happen for a fault of the proxy to be met, where business alone does not do."""


async def calm(day: Day) -> None:
    """Whatever has come is over: no event that comes now is kept from its consequences."""
    day.chain.set_next_block_base_fee(_GWEI)
    _fund_all(day.rewarding)
    shop = day.shop
    await _until(day, lambda: not _open_honest(shop) and shop.ledger.read_now(_all_lanes_rest))


# --- the day after --------------------------------------------------------------------------------


async def finish(rewarding: RewardShop, seed: int) -> None:
    """A fresh gateway takes up what is there, until nothing is open."""
    shop = rewarding.shop
    _fund_all(rewarding)
    shop.clock.ahead_ms += LONGEST_DAY_MS
    async with dawn(rewarding, seed) as day:
        await _until(day, lambda: not _open_honest(shop) and not _unrewarded(rewarding))
        for _ in range(_ROUNDS_OF_PROOF):
            await day.refuse_to_the_end()
            await day.past_the_proof()
            await day.turn(3)
            if not still_open(shop):
                break


def judge(rewarding: RewardShop) -> Counter[str]:
    """Nothing lost, nothing paid twice, nothing stuck; gives the states of all payments."""
    shop = rewarding.shop
    assert still_open(shop) == {}, _open_ones(shop)
    moved = Counter(str(transfer.nonce) for transfer in shop.chain.transfers(shop.payee))
    states = _states(shop)
    assert {id_ for id_, (state, _) in states.items() if state == "completed"} == set(moved)
    assert set(moved.values()) <= {1}
    tricked = shop.account(TRICKSTER)
    assert all(state == "completed" for state, payer in states.values() if payer != tricked)
    minted = Counter(mint.payment_id for mint in rewarding.points.minted())
    assert minted == moved, "each is rewarded once"
    shop.assert_books_balance()
    return Counter(state for state, _ in states.values())


async def _until(day: Day, is_over: Callable[[], bool]) -> None:
    for _ in range(BLOCKS_TO_SETTLE):
        await day.turn()
        if is_over():
            return
    raise AssertionError(f"not over after {BLOCKS_TO_SETTLE} blocks: {_open_ones(day.shop)}")


def _fund_all(rewarding: RewardShop) -> None:
    """Every wallet that the ledger knows, also one that was added in a life that has ended."""
    for lane in rewarding.shop.ledger.read_now(queries.all_lanes):
        rewarding.shop.chain.fund(lane.address, 100 * ETHER)


def _all_lanes_rest(connection: Connection) -> bool:
    """Whether no lane has anything under way, or is paused."""
    lanes = queries.all_lanes(connection)
    return all(
        lane.paused_because is None and nonces.lowest_open(connection, lane.address) is None
        for lane in lanes
    )


def _open_honest(shop: Shop) -> list[str]:
    tricked = shop.account(TRICKSTER)
    return [
        state
        for state, payer in _states(shop).values()
        if state != "completed" and payer != tricked
    ]


def _open_ones(shop: Shop) -> list[str]:
    """What is known of the payments that are not at their end, for the message."""
    p = schema.payments.c
    query = select(p.id, p.state, p.payer, p.preflights, p.signed_until_s, p.failure_reason).where(
        p.state.not_in(("completed", "failed"))
    )
    time_s = shop.chain.block_time_s()
    rows = shop.ledger.read_now(lambda c: c.execute(query).all())
    return [f"{tuple(row)} at {time_s} s" for row in rows]


def _unrewarded(rewarding: RewardShop) -> bool:
    moved = {transfer.nonce for transfer in rewarding.shop.chain.transfers(rewarding.shop.payee)}
    return moved != {mint.payment_id for mint in rewarding.points.minted()}


def _states(shop: Shop) -> dict[str, tuple[str, str]]:
    """Payment id to state and payer."""
    p = schema.payments.c
    rows = shop.ledger.read_now(lambda c: c.execute(select(p.id, p.state, p.payer)).all())
    return {row.id: (str(row.state), row.payer) for row in rows}
