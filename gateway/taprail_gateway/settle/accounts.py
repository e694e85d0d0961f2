"""Balances of the accounts in custody: read at start, when one is new or money moves, and anyway.

The hot path holds funds against these numbers without asking the chain. Payments of our own change
them in the commit that completes them (see `confirmer`); here is what changes from outside. It is
seen in the token's logs; should those have missed it, a slice of all accounts is read again at
every look, so that none is older than some minutes.

One gateway does it for all, by a lease of its own, whether it has a lane or not. Two could do no
harm, because the ledger takes no balance of an earlier block, but each would ask for everything.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection, func, select

from taprail_common.crash import crash
from taprail_gateway.ledger import leases, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease, LeaseLostError
from taprail_gateway.ledger.schema import account_is_unread, accounts
from taprail_gateway.settle.calls import TRANSFER_TOPIC, address_topic, topic_address
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.lane_keeper import LaneKeeper
from taprail_gateway.settle.replies import Block

# As many topics as nodes take without complaint; with more accounts, all of the token's transfers
# are read and sorted out here: one call either way.
_MAX_TOPICS: Final = 500
# After a longer gap (the node was away) reading all balances is cheaper than reading its logs.
_MAX_LOG_BLOCKS: Final = 500
# Balances of one ledger write: a commit of some milliseconds.
_BALANCES_PER_WRITE: Final = 5_000
# Everyone's balance is read again within this, unless there are more accounts than so many looks
# can read: 2,000 are four calls of a node.
_ROUND_S: Final = 300.0
_MAX_SLICE: Final = 2_000

_log = structlog.get_logger("settle.accounts")


def wrapped_keys(connection: Connection, addresses: Sequence[str]) -> dict[str, bytes]:
    """The wrapped signing key of each account; none of those whose card alone has it."""
    statement = select(accounts.c.address, accounts.c.wrapped_key).where(
        accounts.c.address.in_(addresses), accounts.c.wrapped_key.is_not(None)
    )
    return {row.address: row.wrapped_key for row in connection.execute(statement)}


def _all_addresses(connection: Connection) -> list[str]:
    return list(connection.execute(select(accounts.c.address)).scalars())


def _newest_block(connection: Connection) -> int:
    """The highest block that any balance is of."""
    return connection.execute(select(func.max(accounts.c.balance_block))).scalar() or 0


def unread_addresses(connection: Connection) -> list[str]:
    """Accounts whose balance was never read."""
    unread = select(accounts.c.address).where(account_is_unread)
    return list(connection.execute(unread).scalars())


def addresses_after(connection: Connection, *, address: str, limit: int) -> list[str]:
    """The next accounts in the order of their addresses."""
    following = select(accounts.c.address).where(accounts.c.address > address)
    return list(connection.execute(following.order_by(accounts.c.address).limit(limit)).scalars())


@dataclass
class AccountWatch:
    """Keeps balances as new as the blocks that it is shown, while that is this gateway's to do."""

    ledger: Ledger
    chain: Chain
    keeper: LaneKeeper
    _lease: Lease | None = field(default=None, init=False)
    _known: set[str] = field(default_factory=set, init=False)
    _seen_block: int | None = field(default=None, init=False)
    _newest_known: int | None = field(default=None, init=False)
    """The highest block that the ledger had a balance of when we began to read; it takes none of an
    earlier one."""
    _sliced_until: str = field(default="", init=False)
    _sliced_at_s: float = field(default=0.0, init=False)

    def forget(self) -> None:
        """What was read may be of another branch: read all again."""
        self._seen_block = self._newest_known = None

    async def look(self, block: Block, fresh: Collection[str], now_s: float) -> None:
        """Bring the ledger's balances up to this block, at which those of `fresh` were read.

        Raises ChainError, having lost nothing: what the logs did not tell is asked for again.
        """
        if self._lease != self.keeper.accounts:
            self._lease = self.keeper.accounts
            self.forget()
        if self._lease is None:
            return
        try:
            if self._seen_block is None or block.number - self._seen_block > _MAX_LOG_BLOCKS:
                await self._read_all(block, now_s)
            else:
                await self._follow(self._seen_block, block, fresh, now_s)
                self._seen_block = block.number
        except LeaseLostError:
            self.keeper.lose_accounts()

    async def _read_all(self, block: Block, now_s: float) -> None:
        """Read every balance; where the ledger has some of later blocks, only what has none yet."""
        if self._newest_known is None:
            self._newest_known = await self.ledger.read(_newest_block)
        if block.number < self._newest_known:
            await self._refresh(await self.ledger.read(unread_addresses), block.number)
            return
        everyone = await self.ledger.read(_all_addresses)
        await self._refresh(everyone, block.number)
        self._known, self._sliced_at_s = set(everyone), now_s
        self._seen_block, self._newest_known = block.number, None
        _log.info("settle.balances_read", accounts=len(everyone), block=block.number)

    async def _follow(
        self, seen_block: int, block: Block, fresh: Collection[str], now_s: float
    ) -> None:
        unread = await self.ledger.read(unread_addresses)
        changed = {*unread, *await self._slice(now_s)}
        failure: ChainError | None = None
        try:
            changed |= await self._moved(seen_block + 1, block.number, fresh)
        except ChainError as exc:
            failure = exc  # the slices go on
        await self._refresh(sorted(changed.difference(fresh)), block.number)
        self._known.update(changed)
        if failure is not None:
            raise failure

    async def _slice(self, now_s: float) -> list[str]:
        share = (now_s - self._sliced_at_s) / _ROUND_S
        size = min(max(math.ceil(len(self._known) * share), 1), _MAX_SLICE)
        self._sliced_at_s = now_s
        part = await self.ledger.read(
            partial(addresses_after, address=self._sliced_until, limit=size)
        )
        self._sliced_until = part[-1] if len(part) == size else ""
        return part

    async def _moved(self, first_block: int, last_block: int, fresh: Collection[str]) -> set[str]:
        """Our accounts whose money the token's logs show as moved, but for those just read."""
        watched = self._known.difference(fresh)
        if first_block > last_block or not self._known:
            return set()
        if len(self._known) > _MAX_TOPICS:
            queries: list[list[str | list[str] | None]] = [[TRANSFER_TOPIC]]
        else:
            known, others = (sorted(map(address_topic, each)) for each in (self._known, watched))
            queries = [[TRANSFER_TOPIC, None, known]]
            queries += [[TRANSFER_TOPIC, others]] if others else []
        moved: set[str] = set()
        for topics in queries:
            for log in await self.chain.token_logs(topics, first_block, last_block):
                moved.update(topic_address(topic) for topic in log.topics[1:3])
        return moved & watched

    async def _refresh(self, addresses: Sequence[str], block_number: int) -> None:
        for start in range(0, len(addresses), _BALANCES_PER_WRITE):
            part = addresses[start : start + _BALANCES_PER_WRITE]
            balances = await self.chain.balances(part, block_number)
            crash("confirm.accounts_read")
            await self.ledger.write(partial(self._store, balances=balances, block=block_number))
            crash("confirm.accounts_written")

    def _store(self, connection: Connection, *, balances: Mapping[str, int], block: int) -> None:
        if self._lease is not None:
            leases.guard(connection, self._lease)
        transitions.refresh_balances(connection, balances, block)
