"""A shop that settles: a real ledger with keys in custody, a real chain, and nothing in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from sqlalchemy import Connection, delete, insert, select, update

from taprail_common.clock import SystemClock
from taprail_common.ids import payment_id
from taprail_common.payment_state import HOLDING, PaymentState
from taprail_gateway.custody import Custody, create_master_key
from taprail_gateway.ledger import queries, schema, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.queries import Payment
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.connect import connect
from taprail_gateway.settle.engine import Settlement
from taprail_gateway.settle.judge import PROOF_DEPTH
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.settings import ChainSettings, SettlementSettings
from taprail_gateway.wakeups import Wakeups
from taprail_hwsim.dev_chain import DevChain
from tests.support.eip3009 import Authorization
from tests.support.ledger_fixtures import DAY, NOW_MS, Registry, SeededCard, seed_registry

ETHER = 10**18
BALANCE_UNITS = 1_000_000
DAILY_LIMIT_UNITS = 10**12
WAIT_S = 30.0
"""For a test that would otherwise wait for ever."""


class SteppingClock(SystemClock):
    """The machine's clock, set ahead by the test."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_ms / 1000


@dataclass
class Shop:
    """One merchant's side of the world; `settlement` makes a fresh one, as after a restart."""

    chain: DevChain
    ledger: Ledger
    custody: Custody
    registry: Registry
    lanes: list[str]
    settings: SettlementSettings
    clock: SteppingClock = field(default_factory=SteppingClock)
    wakeups: Wakeups = field(default_factory=Wakeups)
    _open: list[Chain] = field(default_factory=list)
    _sold: int = 0

    @property
    def lane(self) -> str:
        """The only lane."""
        (lane,) = self.lanes
        return lane

    @property
    def payee(self) -> str:
        return str(self.registry.payment("any")["payee"])

    def account(self, card: int = 0) -> str:
        return self.registry.cards[card].account

    async def connect(self, rpc_url: str | None = None, **changes: Any) -> Chain:
        settings = ChainSettings(
            rpc_urls=(rpc_url or self.chain.rpc_url,),
            chain_id=self.chain.chain_id,
            token=self.chain.token_address,
            multicall=self.chain.multicall_address,
            **changes,
        )
        chain = await connect(settings)
        self._open.append(chain)
        return chain

    async def settlement(self, chain: Chain | None = None, **changes: Any) -> Settlement:
        """A new settlement on this ledger, not started: tests turn its wheels by hand."""
        settlement = Settlement(
            self.ledger,
            chain or await self.connect(),
            self.custody,
            LiveSettings(SettlementSettings(**{**self.settings.model_dump(), **changes})),
            self.clock,
            self.wakeups,
        )
        await settlement.take_lanes()
        return settlement

    async def close(self) -> None:
        for chain in self._open:
            await chain.close()

    # --- sales --------------------------------------------------------------------------------

    async def sell(
        self,
        count: int = 1,
        *,
        amount_units: int = 100,
        card: int = 0,
        priority: int = 0,
        payee: str | None = None,
    ) -> list[str]:
        """Accept payments as the gateway does: row, hold and spend in one commit."""
        requests = [f"req_{self._sold + i}" for i in range(count)]
        self._sold += count
        changed = {"priority": priority, **({"payee": payee} if payee else {})}
        rows = [
            {**self.registry.payment(item, card=card, amount_units=amount_units), **changed}
            for item in requests
        ]

        def accept(connection: Connection) -> None:
            for row in rows:
                assert transitions.hold(connection, row["payer"], amount_units)
                assert transitions.reserve_spend(
                    connection, row["card_uuid"], DAY, amount_units, DAILY_LIMIT_UNITS
                )
            transitions.accept(connection, rows, self.clock.now_ms())

        await self.ledger.write(accept)
        self.wakeups.pending.ring()
        return [payment_id(self.registry.terminal_id, item) for item in requests]

    def payment(self, payment_id: str) -> Payment:
        found = self.ledger.read_now(lambda connection: queries.payment(connection, payment_id))
        assert found is not None
        return found

    def states(self, payment_ids: Sequence[str]) -> Counter[str]:
        return Counter(str(self.payment(each).state) for each in payment_ids)

    def lane_row(self, lane: str | None = None) -> queries.Lane:
        """A lane as the ledger has it; of the only one, unless it is named."""
        wanted = lane or self.lane
        (row,) = (it for it in self.ledger.read_now(queries.all_lanes) if it.address == wanted)
        return row

    def transactions(self) -> list[dict[str, Any]]:
        """All chain transactions, in the order of their nonces, of one lane after the other."""
        table = schema.chain_transactions
        rows = self.ledger.read_now(
            lambda connection: connection.execute(
                select(table).order_by(table.c.lane, table.c.nonce)
            ).all()
        )
        return [dict(row._mapping) for row in rows]

    def balance(self, card: int = 0) -> tuple[int, int, int]:
        """What the ledger holds of an account: balance, block, held."""
        table = schema.accounts
        statement = select(table.c.balance_units, table.c.balance_block, table.c.held_units).where(
            table.c.address == self.account(card)
        )
        row = self.ledger.read_now(lambda connection: connection.execute(statement).one())
        return row[0], row[1], row[2]

    # --- holders and strangers ----------------------------------------------------------------

    def holder(self, card: int = 0) -> LocalAccount:
        """The account's key in the hands of someone who is not the gateway."""
        address = self.account(card)
        statement = select(schema.accounts.c.wrapped_key).where(
            schema.accounts.c.address == address
        )
        wrapped = self.ledger.read_now(lambda connection: connection.execute(statement).scalar())
        return self._wallet(address, wrapped or b"")

    def lane_holder(self, lane_address: str | None = None) -> LocalAccount:
        lane = self.lane_row(lane_address)
        return self._wallet(lane.address, lane.wrapped_key)

    def _wallet(self, address: str, wrapped: bytes) -> LocalAccount:
        wallet: LocalAccount = Account.from_key(self.custody.unwrap(address, wrapped).secret)
        return wallet

    def authorization(
        self, nonce: str, *, card: int = 0, payee: str | None = None, amount_units: int = 100
    ) -> Authorization:
        """An authorization of the card's account, signed by eth_account."""
        unsigned = Authorization(
            sender=self.account(card),
            recipient=payee or self.payee,
            amount_units=amount_units,
            nonce=nonce,
            valid_after_s=0,
            valid_before_s=self.chain.block_time_s() + 3600,
        )
        return unsigned.signed_by(self.holder(card), self.chain)

    def execute(self, authorization: Authorization) -> str:
        """Carry it out as a stranger; the transaction's hash."""
        receipt = self.chain.send(
            self.chain.accounts[1], self.chain.token_address, authorization.call_data()
        )
        assert receipt["status"] == "0x1"
        return str(receipt["transactionHash"])

    # --- truth --------------------------------------------------------------------------------

    def received_units(self) -> int:
        """What the chain says the merchant got."""
        return sum(transfer.amount_units for transfer in self.chain.transfers(self.payee))

    def assert_books_balance(self) -> None:
        """The ledger's invariants, and ledger = chain to the last unit."""
        assert self.ledger.read_now(queries.check_invariants) == []
        totals = self.ledger.read_now(queries.totals_by_merchant)
        assert totals[self.registry.merchant_id] == self.received_units()
        nonces = [transfer.nonce for transfer in self.chain.transfers(self.payee)]
        assert len(nonces) == len(set(nonces))


async def until_settled(shop: Shop, payment_ids: Sequence[str], wanted: PaymentState) -> None:
    """Wait until all of these are in a state, woken by the ledger's events."""
    bell = shop.wakeups.events.listen()
    async with asyncio.timeout(WAIT_S):
        while shop.states(payment_ids) != {str(wanted): len(payment_ids)}:
            await bell.wait()


async def blocks(shop: Shop, settlement: Settlement, count: int = 1) -> None:
    """Mine blocks one by one, with a look of the confirmer after each."""
    for _ in range(count):
        shop.chain.mine()
        await settlement.confirmer.tick()


async def tick_all(settlement: Settlement) -> None:
    """One step of every lane, all at once."""
    await asyncio.gather(*(sender.tick() for sender in settlement.senders.values()))


def nonces(shop: Shop) -> dict[str, list[int]]:
    """The nonces that were given, by lane."""
    found: dict[str, list[int]] = {}
    for item in shop.transactions():
        found.setdefault(item["lane"], []).append(item["nonce"])
    return found


def send_as_stranger(shop: Shop, lane: str, nonce: int, *, mined: bool = True) -> None:
    """The lane's key, used by somebody who is not the gateway, for a fee that nobody outbids."""
    fields: dict[str, Any] = {
        "to": "0x" + "57" * 20,
        "value": 1,
        "gas": 21_000,
        "nonce": nonce,
        "chainId": shop.chain.chain_id,
        "maxFeePerGas": 10**12,
        "maxPriorityFeePerGas": 10**11,
    }
    signed = shop.lane_holder(lane).sign_transaction(fields)
    shop.chain.node.call("eth_sendRawTransaction", "0x" + bytes(signed.raw_transaction).hex())
    if mined:
        shop.chain.mine()


def still_open(shop: Shop) -> dict[PaymentState, int]:
    counts = shop.ledger.read_now(queries.open_counts)
    return {state: count for state, count in counts.items() if count and state in HOLDING}


@asynccontextmanager
async def open_shop(
    chain: DevChain,
    ledger: Ledger,
    key_file: Path,
    *,
    cards: int = 3,
    lanes: int = 1,
    **settings: Any,
) -> AsyncIterator[Shop]:
    """Open a shop with funded cards and funded lanes on an empty ledger."""
    create_master_key(key_file)
    custody = Custody.load(key_file)
    seeded = seed_registry(ledger, cards=cards, daily_limit_units=DAILY_LIMIT_UNITS)
    registry = ledger.write_now(lambda connection: _own_keys(connection, custody, seeded))
    addresses = ledger.write_now(lambda connection: _own_lanes(connection, custody, lanes))
    chain.mint_all({card.account: BALANCE_UNITS for card in registry.cards})
    for lane in addresses:
        chain.fund(lane, 100 * ETHER)
    shop = Shop(chain, ledger, custody, registry, addresses, SettlementSettings(**settings))
    watcher = await shop.connect()
    balances = await watcher.balances(
        [card.account for card in registry.cards], chain.block_number()
    )
    number = chain.block_number()
    ledger.write_now(lambda connection: transitions.refresh_balances(connection, balances, number))
    try:
        yield shop
    finally:
        await shop.close()


@contextmanager
def by_hand(shop: Shop) -> Iterator[None]:
    """On a chain whose blocks, and their base fee, come by the test's hand alone."""
    shop.chain.node.call("evm_setIntervalMining", 0)
    yield
    # Neither is part of the state that the chain goes back to after a test.
    shop.chain.node.call("evm_setIntervalMining", 1)
    shop.chain.set_next_block_base_fee(10**9)
    shop.chain.mine()


async def send_all(settlement: Settlement) -> None:
    """Turn the sender until it has nothing more to do."""
    while (tick := await settlement.sender.tick()).may_be_more:
        assert tick.obstacle is None
    assert tick.obstacle is None


async def past_the_proof(shop: Shop, settlement: Settlement) -> None:
    """Let all that was signed end, and be buried as deep as a proof wants it."""
    shop.chain.advance_time(601)
    await settlement.confirmer.tick()
    shop.chain.mine(PROOF_DEPTH)
    await settlement.confirmer.tick()


def _own_keys(connection: Connection, custody: Custody, registry: Registry) -> Registry:
    """Give the seeded cards addresses whose keys are really in custody."""
    owned = []
    for card in registry.cards:
        address, wrapped = custody.new_key()
        row = {"address": address, "wrapped_key": wrapped, "created_at_ms": NOW_MS}
        connection.execute(insert(schema.accounts).values(row))
        its_row = schema.cards.c.uuid == card.uuid
        connection.execute(update(schema.cards).where(its_row).values(account=address))
        seeded = schema.accounts.c.address == card.account
        connection.execute(delete(schema.accounts).where(seeded))
        owned.append(SeededCard(card.uuid, address))
    return replace(registry, cards=tuple(owned))


def _own_lanes(connection: Connection, custody: Custody, count: int) -> list[str]:
    """Lanes with keys in custody, in the place of the seeded one."""
    connection.execute(delete(schema.lanes))
    keys = [custody.new_key() for _ in range(count)]
    rows = [
        {"address": address, "wrapped_key": wrapped, "created_at_ms": NOW_MS}
        for address, wrapped in keys
    ]
    connection.execute(insert(schema.lanes), rows)
    return [address for address, _wrapped in keys]
