"""Everything of one run on one stage: clock, chain, nodes, ledger, gateways, and other people.

The machine's rules are one-liners over this; how a run ends well is in `ending`. Nothing here is
random.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from taprail_gateway.ledger.queries import all_lanes
from taprail_gateway.settle.settings import SettlementSettings
from tests.model import judge, people
from tests.model.desk import Desk, Wish
from tests.model.fake_chain import FakeChain
from tests.model.fake_node import Fault, Trouble
from tests.model.gateway import Gateway, InlineExecutor
from tests.model.people import Holder, Theft
from tests.model.shop import CUSTODY, genesis, lane_addresses, open_shop
from tests.support.ledger_fixtures import NOW_MS
from tests.support.manual_clock import ManualClock

LEASE_S: Final = 10.0
VALIDITY_S: Final = 60
CAP_GWEI: Final = 500
BLOCK_S: Final = 2.0


@dataclass(frozen=True)
class Plan:
    """What is chosen once, before the first step."""

    lanes: int = 1
    nodes: int = 1
    confirmations: int = 1
    per_transaction: int = 2
    refuses_low_fees: bool = False
    calibrates: bool = False


class Stage:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(InlineExecutor())
        self.clock = ManualClock(NOW_MS)
        self.chain = FakeChain(
            genesis(plan.lanes), NOW_MS // 1000, refuses_low_fees=plan.refuses_low_fees
        )
        self.troubles = [Trouble() for _ in range(plan.nodes)]
        self.lanes = lane_addresses(plan.lanes)
        self.shop = open_shop(plan.lanes, self.clock)
        self.settings = SettlementSettings(
            payment_batch_size=5,
            payments_per_transaction=plan.per_transaction,
            payment_batch_interval_ms=1_000,
            confirmations=plan.confirmations,
            confirmation_timeout_s=20,
            authorization_validity_s=VALIDITY_S,
            max_fee_cap_gwei=CAP_GWEI,
        )
        self.desk = Desk(self.shop.ledger, self.clock, self.settings)
        self.gateways: list[Gateway] = []
        self.foreign: list[str] = []
        """Hashes of what others sent with our keys."""
        self.tampered: set[str] = set()
        """Accounts whose holder did something to them, or was made to look so."""
        self.may_look_foreign = False
        """Whether anything gave reason to take a nonce of ours for a stranger's."""
        self.money_moves_back = False
        """Whether blocks were taken back, so that balances may be behind what is promised."""
        self._watch = sqlite3.connect(self.shop.path)
        self._judged: tuple[object, ...] = ()
        self.start_gateway()

    def close(self) -> None:
        """Let go of everything."""
        for gateway in self.gateways:
            gateway.end()
        self._watch.close()
        self.shop.close()
        self.loop.close()

    # --- gateways -----------------------------------------------------------------------------

    def start_gateway(self) -> None:
        """A new process on the ledger; beside another it gets only the lanes that are free."""
        gateway = Gateway(
            self.loop, self.shop.url, self.clock, self.chain, self.troubles, CUSTODY, self.settings
        )
        self.gateways.append(gateway)
        self._share()
        gateway.start(calibrates=self.plan.calibrates)
        self.bury()

    def bury(self) -> None:
        """Forget the processes that have died."""
        for gateway in self.gateways:
            assert not gateway.fences.broken, gateway.fences.broken
            assert not (found := list(self._too_early(gateway))), found
        self.gateways = [it for it in self.gateways if not it.process.is_dead]
        self._share()

    def _too_early(self, gateway: Gateway) -> Iterator[str]:
        """What it has completed in a block that was not deep enough."""
        wanted = gateway.depth_wanted
        for payment, block_hash in gateway.fences.taken_completed():
            block = self.chain.find(block_hash)
            if block is not None and self.chain.head.number - block.number + 1 < wanted:
                yield f"payment {payment} is completed in block {block.number}, not {wanted} deep"

    def _share(self) -> None:
        for gateway in self.gateways:
            gateway.ledger.shared = len(self.gateways) > 1

    def round(self, seconds: float = BLOCK_S, most: int | None = None) -> None:
        """A block's time in which everybody works."""
        for step in (Gateway.keep, Gateway.follow, Gateway.send):
            for gateway in self.gateways:
                step(gateway)
        self.mine(seconds, most)
        for gateway in self.gateways:
            gateway.confirm()
        self.bury()

    # --- time and chain -----------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Let time pass with no block."""
        self.loop.run_until_complete(self.clock.advance(seconds))

    def mine(self, seconds: float = BLOCK_S, most: int | None = None) -> None:
        """The next block, so many seconds later."""
        self.wait(seconds)
        self.chain.mine(self.clock.now_ms() // 1000, most)

    def reorg(self, depth: int, *, keep: bool, most: int | None) -> None:
        """Another branch takes the place of the old one, with blocks of the same times."""
        self.money_moves_back = self.may_look_foreign = True
        for gone in self.chain.reorg(depth, keep=keep):
            self.chain.mine(gone.time_s, most)

    # --- other people -------------------------------------------------------------------------

    def tamper(self, how: Holder, choice: int) -> None:
        """A holder does something to a payment that was sold, or to its account."""
        payment = self.shop.one_sold(choice)
        if payment is not None:
            payer = self.shop.ledger.read_now(judge.read_books).payments[payment].payer
            self.tampered.add(payer)
            people.tamper(self.chain, how, payer, payment)

    def steal_nonce(self, choice: int, which: Theft) -> None:
        """Somebody else sends with a lane's key."""
        number = choice % len(self.lanes)
        mined = self.chain.world.nonces.get(self.lanes[number], 0)
        lanes = {lane.address: lane for lane in self.shop.ledger.read_now(all_lanes)}
        following = max(mined, lanes[self.lanes[number]].next_nonce or 0)
        nonce = {
            Theft.LOWEST: mined,
            Theft.MIDDLE: (mined + following) // 2,
            Theft.NEXT: following,
            Theft.BEYOND: following + 1,
        }[which]
        self.foreign.append(people.steal_nonce(self.chain, number, nonce))
        self.may_look_foreign = True

    def fail(self, node: int, fault: Fault, times: int) -> None:
        """A node behaves badly for so many requests."""
        self.troubles[node % len(self.troubles)].faults[fault] = times
        self.may_look_foreign |= fault is Fault.NO_RECEIPTS

    def freeze(self, node: int, *, is_frozen: bool) -> None:
        """A node shows nothing new from now on; or is itself again."""
        trouble = self.troubles[node % len(self.troubles)]
        trouble.frozen = list(self.chain.blocks) if is_frozen else None
        self.may_look_foreign |= is_frozen

    def pause_token(self, *, is_paused: bool) -> None:
        """Its issuer stops the whole token, or lets it go on."""
        self.chain.world.is_paused = is_paused

    def set_coins(self, lane: int, coins_wei: int) -> None:
        """A wallet runs dry, or is topped up."""
        self.chain.world.coins_wei[self.lanes[lane % len(self.lanes)]] = coins_wei

    def operate(self, wish: Wish, choice: int) -> None:
        """An operator does something."""
        lane = self.lanes[choice % len(self.lanes)]
        self.desk.does(wish, self.shop.one_sold(choice), lane)

    # --- judgement ----------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What is wrong now; nothing new can be while neither ledger nor chain have changed."""
        (version,) = self._watch.execute("PRAGMA data_version").fetchone()
        state = (version, self.chain.head.block_hash, len(self.chain.offered))
        if state == self._judged:
            return []
        self._judged = state
        books = self.shop.ledger.read_now(judge.read_books)
        found = list(judge.problems(books, self.chain, self.foreign))
        if not self.money_moves_back and not self.tampered:
            found += judge.overdrawn(books, self.chain)
        if not self.may_look_foreign and "foreign_nonce" in books.alerts:
            found.append("a lane was paused for a stranger, and there is none")
        return found
