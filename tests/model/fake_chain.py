"""A small EVM-like chain in memory: blocks, a pool with its rules, reorgs. No clock, no chance.

It has what makes settlement hard: a pool that refuses, forgets and wants a tenth more for a
replacement, base fees, blocks that vanish, strangers who carry out what they see. Times come in as
arguments. A test compares it with anvil, so that what is proven on it is no fiction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from eth_utils.crypto import keccak

from tests.model import signed
from tests.model.world import CHAIN_ID, Call, Event, RevertedError, World, intrinsic_gas, transfers

GWEI: Final = 10**9
BLOCK_GAS: Final = 30_000_000
LOWEST_BASE_FEE_WEI: Final = GWEI
_BUMP_PERCENT: Final = 10  # geth's txpool.pricebump
_ELASTICITY: Final = 2  # EIP-1559
_CHANGE: Final = 8  # EIP-1559: an eighth a block at most


class RefusedError(Exception):
    """The node's answer to a transaction that it does not take."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Stranger:
    """A call from a wallet that is no concern of ours: it always gets into the next block."""

    sender: str
    to: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Mined:
    """What a transaction did in its block."""

    tx_hash: str
    sender: str
    nonce: int
    succeeded: bool
    gas_used: int
    events: tuple[Event, ...]
    source: signed.Transaction | Stranger


@dataclass(frozen=True, slots=True)
class Block:
    """A block and the world after it."""

    number: int
    block_hash: str
    parent_hash: str
    time_s: int
    base_fee_wei: int
    gas_used: int
    mined: tuple[Mined, ...]
    world: World

    def transfers(self) -> dict[str, str]:
        """The authorizations that moved money here: nonce → the transaction's hash."""
        return {nonce: each.tx_hash for each in self.mined for nonce in transfers(each.events)}


@dataclass
class FakeChain:
    """The chain as it is now: `offer` is what a node does, `mine` what time does."""

    genesis: World
    time_s: int
    refuses_low_fees: bool = False
    """Like anvil: what cannot pay the next block's base fee is not taken. geth takes it."""
    blocks: list[Block] = field(default_factory=list)
    pool: dict[tuple[str, int], signed.Transaction] = field(default_factory=dict)
    strangers: list[Stranger] = field(default_factory=list)
    offered: dict[str, signed.Transaction] = field(default_factory=dict)
    """Everything that ever left a gateway to be mined, taken or not."""
    asked: set[signed.Authorization] = field(default_factory=set)
    """Authorizations that a node has seen in a question."""
    base_fee_wei: int = LOWEST_BASE_FEE_WEI
    _branch: int = 0

    def __post_init__(self) -> None:
        self.blocks.append(
            Block(0, _hash("genesis"), "0x" + "00" * 32, self.time_s, GWEI, 0, (), self.genesis)
        )

    @property
    def head(self) -> Block:
        """The newest block."""
        return self.blocks[-1]

    @property
    def world(self) -> World:
        """The state after the newest block."""
        return self.head.world

    # --- the pool -----------------------------------------------------------------------------

    def offer(self, raw: bytes) -> str:
        """Take a transaction into the pool; its hash, or RefusedError in a node's own words."""
        try:
            it = signed.transaction(raw)
        except signed.NoTransactionError as exc:
            raise RefusedError(-32602, "Failed to decode transaction") from exc
        self.offered[it.tx_hash] = it
        self._check(it)
        self._check_replacement(it)
        self.pool[it.sender, it.nonce] = it
        return it.tx_hash

    def _check(self, it: signed.Transaction) -> None:
        if it.chain_id != CHAIN_ID or not it.sender:
            raise RefusedError(-32000, "invalid chain id for signer")
        if it.gas > BLOCK_GAS:
            raise RefusedError(-32000, "exceeds block gas limit")
        if it.gas < intrinsic_gas(it.data):
            raise RefusedError(-32000, "intrinsic gas too low")
        if it.nonce < self.world.nonces.get(it.sender, 0):
            raise RefusedError(-32000, "nonce too low")
        if self.world.coins_wei.get(it.sender, 0) < it.gas * it.max_fee_wei + it.value_wei:
            raise RefusedError(-32000, "insufficient funds for gas * price + value")
        if self.refuses_low_fees and it.max_fee_wei < self.base_fee_wei:
            raise RefusedError(-32003, "max fee per gas less than block base fee")

    def _check_replacement(self, it: signed.Transaction) -> None:
        old = self.pool.get((it.sender, it.nonce))
        if old is None:
            return
        if old.tx_hash == it.tx_hash:
            raise RefusedError(-32000, "already known")
        dearer = it.max_fee_wei * 100 >= old.max_fee_wei * (
            100 + _BUMP_PERCENT
        ) and it.priority_fee_wei * 100 >= old.priority_fee_wei * (100 + _BUMP_PERCENT)
        if not dearer:
            raise RefusedError(-32000, "replacement transaction underpriced")

    def drop(self, position: int) -> None:
        """Forget one transaction of the pool."""
        if self.pool:
            del self.pool[sorted(self.pool)[position % len(self.pool)]]

    # --- blocks -------------------------------------------------------------------------------

    def mine(self, now_s: int, most: int | None = None) -> Block:
        """The next block, with at most so many of the pool's transactions, strangers first."""
        parent, world = self.head, self.head.world.copy()
        time_s, number = max(parent.time_s + 1, now_s), parent.number + 1
        mined: list[Mined] = []
        for stranger in self.strangers:
            mined.append(_run_stranger(stranger, world, time_s, f"{number} {len(mined)}"))
        self.strangers = []
        gas_left = BLOCK_GAS - sum(item.gas_used for item in mined)
        taken = 0
        while most is None or taken < most:
            it = self._next(world, gas_left)
            if it is None:
                break
            mined.append(_run(it, world, time_s, self.base_fee_wei))
            gas_left -= mined[-1].gas_used
            taken += 1
        block = self._append(parent, time_s, mined, world)
        self._forget_outdated()
        return block

    def _next(self, world: World, gas_left: int) -> signed.Transaction | None:
        """The best-paying transaction that can run now."""
        ready = [
            it
            for (sender, nonce), it in self.pool.items()
            if nonce == world.nonces.get(sender, 0)
            and it.max_fee_wei >= self.base_fee_wei
            and it.gas <= gas_left
            and world.coins_wei.get(sender, 0) >= it.gas * it.max_fee_wei + it.value_wei
        ]
        best = max(ready, key=lambda it: (self._tip(it), it.sender), default=None)
        if best is not None:
            del self.pool[best.sender, best.nonce]
        return best

    def _tip(self, it: signed.Transaction) -> int:
        return min(it.priority_fee_wei, it.max_fee_wei - self.base_fee_wei)

    def _append(self, parent: Block, time_s: int, mined: Sequence[Mined], world: World) -> Block:
        text = f"{self._branch} {time_s} {' '.join(item.tx_hash for item in mined)}"
        used = sum(item.gas_used for item in mined)
        block = Block(
            parent.number + 1,
            _hash(parent.block_hash + text),
            parent.block_hash,
            time_s,
            self.base_fee_wei,
            used,
            tuple(mined),
            world,
        )
        self.blocks.append(block)
        target = BLOCK_GAS // _ELASTICITY
        change = self.base_fee_wei * (used - target) // target // _CHANGE
        self.base_fee_wei = max(LOWEST_BASE_FEE_WEI, self.base_fee_wei + change)
        return block

    def _forget_outdated(self) -> None:
        nonces = self.world.nonces
        self.pool = {key: it for key, it in self.pool.items() if key[1] >= nonces.get(key[0], 0)}

    def reorg(self, depth: int, *, keep: bool) -> list[Block]:
        """Take back the newest blocks; with `keep` their transactions return to the pool.

        The branch that replaces them is up to the caller: `mine` it. Gives what was taken back.
        """
        depth = min(depth, self.head.number)
        gone = self.blocks[len(self.blocks) - depth :]
        del self.blocks[len(self.blocks) - depth :]
        self._branch += 1
        for mined in (mined for block in gone for mined in block.mined):
            if isinstance(mined.source, Stranger):
                self.strangers += [mined.source] if keep else []
            elif keep:
                self.pool.setdefault((mined.sender, mined.nonce), mined.source)
        return gone

    # --- truth --------------------------------------------------------------------------------

    def find(self, block_hash: str | None) -> Block | None:
        """The block of this hash, if it is on the chain."""
        return next((block for block in self.blocks if block.block_hash == block_hash), None)

    def moved(self) -> dict[str, list[tuple[Block, Mined, tuple[str, str, int]]]]:
        """Every transfer by authorization on the chain, by its nonce."""
        found: dict[str, list[tuple[Block, Mined, tuple[str, str, int]]]] = {}
        for block, mined in self.mined():
            for nonce, moved in transfers(mined.events).items():
                found.setdefault(nonce, []).append((block, mined, moved))
        return found

    def mined(self) -> Iterator[tuple[Block, Mined]]:
        """Every transaction on the chain."""
        return ((block, mined) for block in self.blocks for mined in block.mined)

    def seen_authorizations(self) -> Mapping[str, signed.Authorization]:
        """What a stranger may have seen and kept: by payment, the latest that ends last."""
        known: dict[str, signed.Authorization] = {}
        for each in self.public_authorizations():
            old = known.get(each.nonce)
            if old is None or each.valid_before_s > old.valid_before_s:
                known[each.nonce] = each
        return dict(sorted(known.items()))

    def public_authorizations(self) -> Iterator[signed.Authorization]:
        """All that left a gateway, in transactions and in questions."""
        for it in self.offered.values():
            yield from signed.authorizations(it.data)
        yield from self.asked


def _run(it: signed.Transaction, world: World, time_s: int, base_fee_wei: int) -> Mined:
    """Carry out a transaction: it pays for its gas whatever becomes of it."""
    before = world.copy()
    call = Call(world, time_s, it.sender)
    try:
        call.run(it.to, it.data)
        succeeded = True
    except RevertedError:
        succeeded = False
    gas_used = intrinsic_gas(it.data) + call.gas_used
    if gas_used > it.gas:
        gas_used, succeeded = it.gas, False
    if not succeeded:
        world.__dict__.update(before.__dict__)
        call.events.clear()
    price_wei = min(it.max_fee_wei, base_fee_wei + it.priority_fee_wei)
    world.nonces[it.sender] = it.nonce + 1
    world.coins_wei[it.sender] -= gas_used * price_wei + it.value_wei
    if it.value_wei:
        world.coins_wei[it.to] = world.coins_wei.get(it.to, 0) + it.value_wei
    events = tuple(call.events)
    return Mined(it.tx_hash, it.sender, it.nonce, succeeded, gas_used, events, it)


def _run_stranger(stranger: Stranger, world: World, time_s: int, salt: str) -> Mined:
    call = Call(world, time_s, stranger.sender)
    try:
        call.run(stranger.to, stranger.data)
        succeeded = True
    except RevertedError:
        succeeded = False
        call.events.clear()
    tx_hash = _hash(f"stranger {salt} {time_s} {stranger.data.hex()}")
    nonce = world.nonces.get(stranger.sender, 0)
    world.nonces[stranger.sender] = nonce + 1
    gas_used = intrinsic_gas(stranger.data) + call.gas_used
    return Mined(tx_hash, stranger.sender, nonce, succeeded, gas_used, tuple(call.events), stranger)


def _hash(text: str) -> str:
    return "0x" + keccak(text=text).hex()
