"""Everything of one run on one stage: clock, chain, nodes, ledger, gateways; and how it ends well.

The machine's rules are one-liners over this. Nothing here is random.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from eth_abi.abi import encode
from eth_account import Account

from taprail_gateway.ledger.queries import all_lanes
from taprail_gateway.settle.settings import SettlementSettings
from tests.model import judge, signed, world
from tests.model.fake_chain import GWEI, LOWEST_BASE_FEE_WEI, FakeChain, RefusedError, Stranger
from tests.model.fake_node import Trouble
from tests.model.gateway import Gateway, InlineExecutor
from tests.model.shop import (
    BALANCE_UNITS,
    CARD_ACCOUNTS,
    CUSTODY,
    LANE_COINS_WEI,
    address,
    genesis,
    lane_addresses,
    open_shop,
    secret,
)
from tests.support.eip3009 import MOVE_FIELDS
from tests.support.ledger_fixtures import NOW_MS
from tests.support.manual_clock import ManualClock

LEASE_S: Final = 10.0
VALIDITY_S: Final = 60
CAP_GWEI: Final = 500
_BLOCK_S: Final = 2.0
_STEPS_A_ROUND: Final = 20
_QUIET_ROUNDS: Final = 15
"""Blocks in which all must be settled that no clock has to run out for …"""
_WAITS: Final = 6
"""… and how often the clock then runs past all deadlines: a payment is bound three times at most,
and each may expire before the proof."""


@dataclass(frozen=True)
class Plan:
    """What is chosen once, before the first step."""

    lanes: int = 1
    nodes: int = 1
    confirmations: int = 1
    per_transaction: int = 2
    refuses_low_fees: bool = False


class Holder(Enum):
    """What the holder of an account may do to our payments."""

    BURNS = "cancels the authorization of a payment"
    USES_NONCE = "uses its nonce for a transfer to somebody else"
    DRAINS = "takes all the money away"
    GETS_CODE = "delegates the account to code (EIP-7702)"
    LOSES_CODE = "takes the code away"


class Stage:
    """One run. `do` and `problems` are for the rules; `settle` ends all faults and finishes."""

    def __init__(self, plan: Plan) -> None:
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
        self.gateways: list[Gateway] = []
        self.foreign: list[str] = []
        self.tampered: set[str] = set()
        """Accounts whose holder did something to them, or was made to look so."""
        self.may_expire = False
        """Whether something lasted so long, or went so wrong, that a payment may fail by proof."""
        self.money_moves_back = False
        """Whether blocks were taken back, so that balances may be behind what is promised."""
        self.start_gateway()

    def close(self) -> None:
        """Let go of everything."""
        for gateway in self.gateways:
            gateway.end()
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
        gateway.do(gateway.settlement.take_lanes)
        self.bury()

    def bury(self) -> None:
        """Forget the processes that have died."""
        self.gateways = [it for it in self.gateways if not it.process.is_dead]
        self._share()

    def _share(self) -> None:
        for gateway in self.gateways:
            gateway.ledger.shared = len(self.gateways) > 1

    def send(self, gateway: Gateway) -> None:
        """Steps of all its senders, until nothing is left to do at once."""
        for sender in senders(gateway):
            for _ in range(_STEPS_A_ROUND):
                tick = gateway.do(sender.tick)
                if tick is None or not tick.may_be_more or tick.obstacle:
                    break
        self.bury()

    def confirm(self, gateway: Gateway) -> None:
        """One look at the chain."""
        gateway.do(gateway.settlement.confirmer.tick)
        self.bury()

    def keep(self, gateway: Gateway) -> None:
        """Renew leases and take free ones, and hear what operators have set."""
        gateway.do(gateway.settlement.take_lanes)
        if not gateway.process.is_dead:
            gateway.do(gateway.settlement.follow_settings)
        self.bury()

    # --- time and chain -----------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Let time pass with no block."""
        self.loop.run_until_complete(self.clock.advance(seconds))
        if seconds > VALIDITY_S / 4:
            self.may_expire = True

    def mine(self, seconds: float = _BLOCK_S, most: int | None = None) -> None:
        """The next block, so many seconds later."""
        self.wait(seconds)
        self.chain.mine(self.clock.now_ms() // 1000, most)

    def reorg(self, depth: int, *, keep: bool, most: int | None) -> None:
        """Another branch, as long as the old one, takes its place."""
        self.money_moves_back = True
        for _ in self.chain.reorg(depth, keep=keep):
            self.mine(1, most)

    # --- strangers and holders ----------------------------------------------------------------

    def execute(self, choice: int) -> None:
        """A stranger carries out an authorization that was seen on its way."""
        seen = list(self.chain.seen_authorizations().values())
        if seen:
            it = seen[choice % len(seen)]
            self.chain.strangers.append(Stranger(_STRANGER, world.TOKEN, call_data(it)))

    def tamper(self, how: Holder, choice: int) -> None:
        """A holder does something to a payment that was sold, or to its account."""
        if not self.shop.sold:
            return
        payment = self.shop.sold[choice % len(self.shop.sold)]
        books = self.shop.ledger.read_now(judge.read_books)
        payer = books.payments[payment].payer
        self.tampered.add(payer)
        if how is Holder.GETS_CODE:
            self.chain.world.delegated.add(payer)
        elif how is Holder.LOSES_CODE:
            self.chain.world.delegated.discard(payer)
        else:
            data = self._holder_call(how, payer, payment)
            self.chain.strangers.append(Stranger(payer, world.TOKEN, data))

    def _holder_call(self, how: Holder, payer: str, payment: str) -> bytes:
        if how is Holder.BURNS:
            return world.CANCEL + encode(
                ["address", "bytes32", "uint8", "bytes32", "bytes32"],
                [payer, bytes.fromhex(payment[2:]), 27, b"\1" * 32, b"\1" * 32],
            )
        if how is Holder.USES_NONCE:
            return call_data(authorize(payer, _ELSEWHERE, 1, payment, 2**40))
        units = self.chain.world.tokens.get(payer, 0)
        return world.PLAIN_TRANSFER + encode(["address", "uint256"], [_ELSEWHERE, units])

    def steal_nonce(self, lane: int, ahead: int) -> None:
        """Somebody else sends with a lane's key."""
        wallet = self.lanes[lane % len(self.lanes)]
        nonce = self.chain.world.nonces.get(wallet, 0) + ahead
        raw = bytes(
            Account.sign_transaction(
                {
                    "chainId": world.CHAIN_ID,
                    "nonce": nonce,
                    "to": _ELSEWHERE,
                    "value": 1,
                    "gas": 21_000,
                    "maxFeePerGas": CAP_GWEI * 4 * GWEI,
                    "maxPriorityFeePerGas": CAP_GWEI * GWEI,
                },
                secret(f"lane {self.lanes.index(wallet)}"),
            ).raw_transaction
        )
        self.foreign.append(signed.transaction(raw).tx_hash)
        self.may_expire = True
        try:
            self.chain.offer(raw)
        except RefusedError:
            return

    # --- coins --------------------------------------------------------------------------------

    def set_coins(self, lane: int, coins_wei: int) -> None:
        """A wallet runs dry, or is topped up."""
        self.chain.world.coins_wei[self.lanes[lane % len(self.lanes)]] = coins_wei

    # --- judgement ----------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What is wrong now."""
        books = self.shop.ledger.read_now(judge.read_books)
        found = list(judge.problems(books, self.chain, self.foreign))
        if not self.money_moves_back and not self.tampered:
            found += judge.overdrawn(books, self.chain)
        return found

    def heal(self) -> None:
        """End every fault; what it has caused is still there."""
        for trouble in self.troubles:
            trouble.end()
        for gateway in self.gateways:
            gateway.process.points_left = None
        self.chain.base_fee_wei = LOWEST_BASE_FEE_WEI
        for lane in range(len(self.lanes)):
            self.set_coins(lane, LANE_COINS_WEI)
        for account in sorted(self.tampered):
            self.chain.world.tokens[account] = BALANCE_UNITS
            self.chain.world.delegated.discard(account)
        if self.foreign:
            self.shop.resume_lanes()
        if not self.gateways:
            self.start_gateway()

    def settle(self) -> list[str]:
        """Everything must come to its end now; what did not, or ended wrongly."""
        self.heal()
        for _ in range(_WAITS):
            if self._run_quietly():
                break
            self.wait(VALIDITY_S + LEASE_S)
        books = self.shop.ledger.read_now(judge.read_books)
        found = [*self.problems(), *judge.unsettled(books, self.chain), *self._unjust(books)]
        if found:
            found += [str(lane) for lane in self.shop.ledger.read_now(all_lanes)]
            found += [f"hindered: {it.hindered}" for it in self.gateways if it.hindered]
        return found

    def _run_quietly(self) -> bool:
        for _ in range(_QUIET_ROUNDS):
            self.round()
            books = self.shop.ledger.read_now(judge.read_books)
            if not list(judge.unsettled(books, self.chain)):
                return True
        return False

    def round(self) -> None:
        """A block's time of a world in which everything works."""
        for step in (self.keep, self.send):
            for gateway in list(self.gateways):
                step(gateway)
        self.mine()
        for gateway in list(self.gateways):
            self.confirm(gateway)

    def _unjust(self, books: judge.Books) -> Iterator[str]:
        """Payments that failed although nobody and nothing gave a reason for it."""
        for it in books.payments.values():
            if it.state != "failed" or it.id in self.shop.cancelled or self.may_expire:
                continue
            if it.payer not in self.tampered:
                yield f"payment {it.id} failed without a cause: {it.failure_reason}"


def senders(gateway: Gateway) -> list[Any]:
    """The senders of the lanes that are its own."""
    settlement = gateway.settlement
    return [settlement.sender] if settlement.keeper.leases else []


def authorize(
    payer: str, payee: str, amount_units: int, nonce: str, valid_before_s: int
) -> signed.Authorization:
    """An authorization signed by eth_account with the key of a card's account."""
    domain = {
        "name": world.TOKEN_NAME,
        "version": world.TOKEN_VERSION,
        "chainId": world.CHAIN_ID,
        "verifyingContract": world.TOKEN,
    }
    fields = {
        "from": payer,
        "to": payee,
        "value": amount_units,
        "validAfter": 0,
        "validBefore": valid_before_s,
        "nonce": nonce,
    }
    key = secret(f"card {CARD_ACCOUNTS.index(payer)}")
    it = Account.sign_typed_data(key, domain, {"TransferWithAuthorization": MOVE_FIELDS}, fields)
    return signed.Authorization(
        payer,
        payee,
        amount_units,
        0,
        valid_before_s,
        nonce,
        it.v,
        it.r.to_bytes(32),
        it.s.to_bytes(32),
    )


def call_data(it: signed.Authorization) -> bytes:
    """The call that carries an authorization out."""
    return signed.TRANSFER_WITH_AUTHORIZATION + encode(
        signed.AUTHORIZATION_TYPES,
        [
            *(it.payer, it.payee, it.amount_units, it.valid_after_s, it.valid_before_s),
            *(bytes.fromhex(it.nonce[2:]), it.v, it.r, it.s),
        ],
    )


_STRANGER: Final = address("stranger")
_ELSEWHERE: Final = address("elsewhere")
