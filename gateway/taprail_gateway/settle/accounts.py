"""Balances of the accounts in custody: read at start, when one is new, and when one is topped up.

The hot path holds funds against these numbers without asking the chain. Payments of our own change
them in the commit that completes them (see `confirmer`); here is what changes from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy import Connection, select

from taprail_gateway.ledger import transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.schema import accounts
from taprail_gateway.settle.calls import TRANSFER_TOPIC, address_topic, topic_address
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.replies import Block

# As many topics as nodes take without complaint; with more accounts, all of the token's transfers
# are read and sorted out here: one call either way.
_MAX_TOPICS: Final = 500
# After a longer gap (the node was away) reading all balances is cheaper than reading its logs.
_MAX_LOG_BLOCKS: Final = 500
# Balances of one ledger write: a commit of some milliseconds.
_BALANCES_PER_WRITE: Final = 5_000

_log = structlog.get_logger("settle.accounts")


def wrapped_keys(connection: Connection, addresses: Sequence[str]) -> dict[str, bytes]:
    """The wrapped signing key of each account."""
    statement = select(accounts.c.address, accounts.c.wrapped_key).where(
        accounts.c.address.in_(addresses)
    )
    return {row.address: row.wrapped_key for row in connection.execute(statement)}


def _all_addresses(connection: Connection) -> list[str]:
    return list(connection.execute(select(accounts.c.address)).scalars())


def _unread_addresses(connection: Connection) -> list[str]:
    unread = select(accounts.c.address).where(accounts.c.balance_block == 0)
    return list(connection.execute(unread).scalars())


@dataclass
class AccountWatch:
    """Keeps balances as new as the blocks that it is shown."""

    ledger: Ledger
    chain: Chain
    _known: set[str] = field(default_factory=set)
    _seen_block: int | None = None
    _read_all_until: int = 0

    def forget(self) -> None:
        """The branch that the balances were read from is gone: read them all again, until the new
        one has grown past what was seen, because the ledger takes no balance of an earlier block.
        """
        self._read_all_until = max(self._read_all_until, self._seen_block or 0)
        self._seen_block = None

    async def look(self, block: Block) -> None:
        """Bring the ledger's balances up to this block; raises ChainError, having lost nothing."""
        unread = await self.ledger.read(_unread_addresses)
        if self._seen_block is None or block.number - self._seen_block > _MAX_LOG_BLOCKS:
            changed = await self.ledger.read(_all_addresses)
        else:
            changed = sorted(await self._topped_up(self._seen_block + 1, block.number) | {*unread})
        await self._refresh(changed, block.number)
        self._known.update(changed)
        self._seen_block = block.number if block.number >= self._read_all_until else None

    async def _topped_up(self, first_block: int, last_block: int) -> set[str]:
        if first_block > last_block or not self._known:
            return set()
        few = len(self._known) <= _MAX_TOPICS
        payees = [address_topic(address) for address in sorted(self._known)] if few else None
        logs = await self.chain.token_logs([TRANSFER_TOPIC, None, payees], first_block, last_block)
        return {topic_address(log.topics[2]) for log in logs if len(log.topics) == 3} & self._known

    async def _refresh(self, addresses: Sequence[str], block_number: int) -> None:
        for start in range(0, len(addresses), _BALANCES_PER_WRITE):
            part = addresses[start : start + _BALANCES_PER_WRITE]
            balances = await self.chain.balances(part, block_number)

            def work(connection: Connection, new: dict[str, int] = balances) -> None:
                transitions.refresh_balances(connection, new, block_number)

            await self.ledger.write(work)
        if addresses:
            _log.info("settle.balances_read", accounts=len(addresses), block=block_number)
