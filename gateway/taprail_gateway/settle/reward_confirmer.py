"""The rewards lanes' confirmation: what has the chain made of our mints?

Like the payments' confirmer it looks once at each new block, at the confirmed depth, with calls
whose number follows what was mined and not what waits. It is simpler, because the contract skips
what it has minted before: a mint that its transaction did not make is sent again without proof.
What goes wrong here is bounded for each mint, told by an alert, and touches no payment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.payment_state import SETTLED, PaymentEvent
from taprail_gateway.backoff import Backoff
from taprail_gateway.ledger import leases, mints, queries
from taprail_gateway.ledger.alerts import clear_alert, raise_alert
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.mints import Mint
from taprail_gateway.ledger.nonces import finish_transaction
from taprail_gateway.ledger.queries import Lane, OpenTransaction, RawAttempt
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.lanes import PauseCause, pause
from taprail_gateway.settle.mint_calls import rewarded
from taprail_gateway.settle.replies import Block, Receipt

MAX_BINDINGS: Final = 6
"""Transactions for one mint: with the waits below a quarter of an hour passes on average."""

BACKOFF: Final = Backoff(first_ms=60_000, longest_ms=60 * 60_000)
"""After a transaction that did not mint: each costs gas, and what is wrong must be put right."""

HINDERED_ALERT: Final = "rewards_hindered"

_MAX_TRANSACTIONS: Final = 200
"""Looked at in one pass; what exceeds them is for the next."""

_BLOCKS_WITHOUT_RECEIPT: Final = 3
"""A node's receipts may lag behind its nonces; then a nonce without any is a stranger's."""

_log = structlog.get_logger("settle.rewards")


@dataclass(frozen=True, slots=True)
class _Mined:
    """A transaction whose nonce is mined at the confirmed block, and the mints in it."""

    transaction: OpenTransaction
    receipt: Receipt | None
    mints: list[Mint]

    @property
    def why_not(self) -> str:
        """Why a mint that is not in its logs was not made."""
        if self.receipt is None:
            return "its nonce was used by a transaction that is not ours"
        if self.receipt.succeeded:
            return "its transaction was replaced by one that does nothing"
        return f"the contract refused it in {self.receipt.tx_hash}"


@dataclass
class RewardConfirmer:
    """Judges the mints of one gateway's rewards lanes; `look` once in every pass for each."""

    ledger: Ledger
    chain: Chain
    contract: str
    clock: Clock
    random: Random
    _first_without_receipt: dict[int, int] = field(default_factory=dict, init=False)

    async def look(self, lane: Lane, lease: Lease, block: Block, mined: int) -> bool:
        """Judge what the lane has mined up to a confirmed block; whether anything is under way.

        `mined` is the lane's count of mined transactions at that block. Raises ChainError,
        StorageError or LeaseLostError; nothing is lost by that.
        """
        open_ones, lost = await self.ledger.read(partial(_situation, lane=lane.address))
        if lost:
            await self._take_back(lease, lost)
        final = [item for item in open_ones if item.nonce < mined][:_MAX_TRANSACTIONS]
        if final:
            known = await self._read_receipts(lane, final, block)
            await self.ledger.write(partial(self._store, lease, block, known))
            crash("rewards.judged")
            _tell(self.contract, known)
        return bool(open_ones)

    async def _take_back(self, lease: Lease, lost: Sequence[str]) -> None:
        """What was minted in a block that is gone is sent again; `reorgs` has seen to the rest."""
        at_ms = self.clock.now_ms()

        def work(connection: Connection) -> None:
            leases.guard(connection, lease)
            mints.apply(connection, PaymentEvent.REORG, lost, at_ms)

        await self.ledger.write(work)
        _log.error("rewards.reorg", payments=list(lost))

    async def _read_receipts(
        self, lane: Lane, final: Sequence[OpenTransaction], block: Block
    ) -> list[_Mined]:
        """Those of the transactions whose outcome is certain at this block."""
        ids = [item.id for item in final]
        versions, travelling = await self.ledger.read(partial(_travellers, ids=ids))
        hashes = [version.tx_hash for each in versions.values() for version in each]
        receipts = await self.chain.receipts(hashes)
        known = []
        for item in final:
            landed = [receipts[v.tx_hash] for v in versions[item.id] if v.tx_hash in receipts]
            receipt = landed[0] if landed else None
            if receipt is not None and receipt.block_number > block.number:
                continue
            if receipt is None and not await self._is_foreign(lane, item, block):
                continue
            self._first_without_receipt.pop(item.id, None)
            known.append(_Mined(item, receipt, travelling[item.id]))
        return known

    async def _is_foreign(self, lane: Lane, item: OpenTransaction, block: Block) -> bool:
        first = self._first_without_receipt.setdefault(item.id, block.number)
        if block.number - first < _BLOCKS_WITHOUT_RECEIPT:
            return False
        text = f"nonce {item.nonce} was used by a transaction that is not ours"
        await pause(self.ledger, lane, PauseCause.FOREIGN_NONCE, text)
        return True

    # --- one commit -----------------------------------------------------------------------------

    def _store(
        self, lease: Lease, block: Block, known: Sequence[_Mined], connection: Connection
    ) -> None:
        leases.guard(connection, lease)
        at_ms = self.clock.now_ms()
        for item in known:
            made, left_out = _sorted_out(self.contract, item)
            if item.receipt is not None and made:
                _confirm(connection, made, item.receipt, at_ms)
                clear_alert(connection, HINDERED_ALERT, lease.lane, at_ms)
            if left_out:
                self._send_round_again(connection, left_out, at_ms, item.why_not)
                text = f"rewards of lane {lease.lane} were not minted: {item.why_not}"
                raise_alert(connection, HINDERED_ALERT, lease.lane, "warning", text, at_ms)
            finish_transaction(connection, item.transaction.id, block.number, block.block_hash)

    def _send_round_again(
        self, connection: Connection, left_out: Sequence[Mint], at_ms: int, reason: str
    ) -> None:
        """Later, those of a transaction together; what was tried too often is given up."""
        tries = min(mint.bindings for mint in left_out)
        mints.apply(
            connection,
            PaymentEvent.UNBIND,
            [mint.payment_id for mint in left_out],
            at_ms,
            due_at_ms=at_ms + BACKOFF.wait_ms(tries, self.random),
            failure_reason=reason,
        )
        spent = [mint.payment_id for mint in left_out if mint.bindings >= MAX_BINDINGS]
        if spent:
            mints.fail(connection, spent, at_ms, f"tried {MAX_BINDINGS} times, at last {reason}")


def _sorted_out(contract: str, item: _Mined) -> tuple[list[str], list[Mint]]:
    """The mints that a transaction has made, by their ids, and those that it has not."""
    found = rewarded(contract, item.receipt.logs) if item.receipt is not None else set()
    made = [mint.payment_id for mint in item.mints if mint.payment_id in found]
    return made, [mint for mint in item.mints if mint.payment_id not in found]


def _confirm(connection: Connection, made: Sequence[str], receipt: Receipt, at_ms: int) -> None:
    mints.apply(
        connection,
        PaymentEvent.CONFIRM,
        made,
        at_ms,
        tx_hash=receipt.tx_hash,
        block_number=receipt.block_number,
        block_hash=receipt.block_hash,
    )


def _situation(connection: Connection, *, lane: str) -> tuple[list[OpenTransaction], list[str]]:
    """A lane's open transactions, and what stands as minted in one of them: its block is gone."""
    return queries.open_transactions(connection, lane), mints.completed_in_open(connection, lane)


def _travellers(
    connection: Connection, *, ids: Sequence[int]
) -> tuple[dict[int, list[RawAttempt]], dict[int, list[Mint]]]:
    """Every version of each transaction, and the mints in it that are not settled."""
    unsettled = {
        transaction: [mint for mint in travelling if mint.state not in SETTLED]
        for transaction, travelling in mints.mints_of(connection, ids).items()
    }
    return queries.raw_attempts(connection, ids), unsettled


def _tell(contract: str, known: Sequence[_Mined]) -> None:
    for item in known:
        made, left_out = _sorted_out(contract, item)
        nonce = item.transaction.nonce
        if made:
            _log.info("rewards.minted", mints=len(made), nonce=nonce)
        if left_out:
            _log.warning(
                "rewards.not_minted", mints=len(left_out), nonce=nonce, reason=item.why_not
            )
