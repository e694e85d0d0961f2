"""Balances of the accounts in custody: read at start, when one is new or money moves, and anyway.

The hot path holds funds against these numbers without asking the chain. Payments of our own change
them in the commit that completes them (see `confirmer`); here is what changes from outside. It is
seen in the token's logs; should those have missed it, a slice of all accounts is read again at
every look, so that none is older than some minutes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection, select

from taprail_common.crash import crash
from taprail_gateway.ledger import transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.schema import account_is_unread, accounts
from taprail_gateway.settle.calls import TRANSFER_TOPIC, address_topic, topic_address
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.errors import ChainError
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
    """The wrapped signing key of each account."""
    statement = select(accounts.c.address, accounts.c.wrapped_key).where(
        accounts.c.address.in_(addresses)
    )
    return {row.address: row.wrapped_key for row in connection.execute(statement)}


def _all_addresses(connection: Connection) -> list[str]:
    return list(connection.execute(select(accounts.c.address)).scalars())


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
    """Keeps balances as new as the blocks that it is shown."""

    ledger: Ledger
    chain: Chain
    _known: set[str] = field(default_factory=set, init=False)
    _seen_block: int | None = field(default=None, init=False)
    _read_all_until: int = field(default=0, init=False)
    _sliced_until: str = field(default="", init=False)
    _sliced_at_s: float = field(default=0.0, init=False)

    def forget(self) -> None:
        """The branch that the balances were read from is gone: read them all again, until the new
        one has grown past what was seen, because the ledger takes no balance of an earlier block.
        """
        self._read_all_until = max(self._read_all_until, self._seen_block or 0)
        self._seen_block = None

    async def look(self, block: Block, fresh: Collection[str], now_s: float) -> None:
        """Bring the ledger's balances up to this block, at which those of `fresh` were read.

        Raises ChainError, having lost nothing: what the logs did not tell is asked for again.
        """
        if self._seen_block is None or block.number - self._seen_block > _MAX_LOG_BLOCKS:
            everyone = await self.ledger.read(_all_addresses)
            await self._refresh(everyone, block.number)
            self._known = set(everyone)
            self._sliced_at_s = now_s
            _log.info("settle.balances_read", accounts=len(everyone), block=block.number)
        else:
            await self._follow(self._seen_block, block, fresh, now_s)
        self._seen_block = block.number if block.number >= self._read_all_until else None

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
            await self.ledger.write(
                partial(transitions.refresh_balances, balances=balances, block_number=block_number)
            )
            crash("confirm.accounts_written")
