"""The cargo of the rewards lanes: mints for payments that are completed, in batches of one call.

The lane itself calls the rewards contract, never Multicall3: the right to mint would be everyone's.
The contract skips what it has minted before, so a call may be made again at any time. While the
lane may not mint, or the contract is gone, its mints wait, with an alert; that ends by itself.
What the chain made of it is judged by `reward_confirmer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.errors import OperatorError
from taprail_gateway.ledger import leases, mints, transitions
from taprail_gateway.ledger.alerts import clear_alert, raise_alert
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.mints import Mint
from taprail_gateway.ledger.transitions import Attempt
from taprail_gateway.settle import mint_calls
from taprail_gateway.settle.cargo import Load, Parcel, Waiting
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.replies import Block
from taprail_gateway.settle.reward_check import is_minter

NOT_MINTER_ALERT: Final = "rewards_not_minter"
NO_CONTRACT_ALERT: Final = "rewards_no_contract"

MINTS_PER_TRANSACTION: Final = 50
"""As for payments: more pack worse into what is left of a block."""

# A limit that fills the block waits for an empty one.
_BLOCK_SHARE: Final = 2

_log = structlog.get_logger("settle.rewards")


@dataclass(frozen=True, slots=True)
class RewardCargo:
    """Rewards, for the lanes of one gateway; see `cargo.Cargo`."""

    ledger: Ledger
    chain: Chain
    contract: str
    clock: Clock

    @property
    def purpose(self) -> str:
        return "rewards"

    def waiting(self, connection: Connection, lane: str, limit: int, now_ms: int) -> Waiting:
        return Waiting(*mints.waiting(connection, lane, limit, now_ms))

    def under_way(self, connection: Connection, lane: str, limit: int) -> int:
        return mints.under_way(connection, lane, limit)

    def gas_each(self) -> int:
        return mint_calls.gas_each(MINTS_PER_TRANSACTION)

    async def prepare(self, lease: Lease, limit: int, head: Block) -> Load:
        if not await self._may_mint(lease.lane):
            return Load(claimed=0)
        now_ms = self.clock.now_ms()

        def claim(connection: Connection) -> list[Mint]:
            leases.guard(connection, lease)
            for kind in (NOT_MINTER_ALERT, NO_CONTRACT_ALERT):
                clear_alert(connection, kind, lease.lane, now_ms)
            return mints.claim(connection, lease.lane, limit, now_ms)

        claimed = await self.ledger.write(claim)
        size = mint_calls.mints_that_fit(MINTS_PER_TRANSACTION, head.gas_limit // _BLOCK_SHARE)
        groups = [claimed[at : at + size] for at in range(0, len(claimed), size)]
        return Load(len(claimed), [self._parcel(group) for group in groups])

    def store(
        self,
        connection: Connection,
        lease: Lease,
        nonce: int,
        parcel: Parcel,
        attempt: Attempt,
        at_ms: int,
    ) -> int:
        return mints.bind(
            connection,
            lease,
            nonce=nonce,
            payment_ids=parcel.ids,
            attempt=attempt,
            at_ms=at_ms,
        )

    def mark_broadcast(
        self, connection: Connection, transaction_ids: Sequence[int], at_ms: int
    ) -> None:
        transitions.mark_broadcast(connection, transaction_ids, at_ms)
        mints.mark_broadcast(connection, transaction_ids, at_ms)

    def give_back(self, connection: Connection, lane: str) -> int:
        return mints.give_back(connection, lane)

    def _parcel(self, group: Sequence[Mint]) -> Parcel:
        return Parcel(
            ids=tuple(mint.payment_id for mint in group),
            to=self.contract,
            data=mint_calls.mint_batch(group),
            gas=mint_calls.gas_limit(len(group)),
            valid_before_s=0,
        )

    async def _may_mint(self, lane: str) -> bool:
        """Whether the contract lets this lane mint now; raises the alarm when it does not."""
        try:
            if await is_minter(self.chain, self.contract, lane):
                return True
        except OperatorError as exc:
            kind, text = NO_CONTRACT_ALERT, f"{exc}: rewards wait until it is there"
        else:
            kind = NOT_MINTER_ALERT
            text = (
                f"the wallet {lane} is no minter of the rewards contract {self.contract}: rewards"
                " wait until its owner grants it (taprail admin reward grant)"
            )
        at_ms = self.clock.now_ms()
        raised = partial(
            raise_alert,
            kind=kind,
            subject=lane,
            level="error",
            text=text,
            at_ms=at_ms,
            needs_review=True,
        )
        if await self.ledger.write(raised):
            _log.error("rewards.wait", lane=lane, reason=text)
        return False
