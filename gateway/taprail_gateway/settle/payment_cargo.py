"""Payments as a lane's cargo: claimed in their order, tried out, signed for, bound.

A payer's key signs twice: once for the trial, for the next seconds only, and once for the
transaction, if the trial went well. Both are in the ledger (as the end of their validity) before
they leave this process. A card that signs has done so once and for all, before its payment came
here: its signature serves for both, and nothing is ever signed beside it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Final

import structlog
from sqlalchemy import Connection

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import card_signatures, claims, floats, leases, transitions
from taprail_gateway.ledger.card_signatures import StoredSignature
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.queries import PendingPayment
from taprail_gateway.ledger.transitions import Attempt
from taprail_gateway.settle import calls, payer_signatures, preflight
from taprail_gateway.settle.accounts import wrapped_keys
from taprail_gateway.settle.cargo import Load, Parcel, Waiting
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.errors import NOT_COVERED
from taprail_gateway.settle.gas import USDC, GasTable
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.payer_signatures import PayerSignatures
from taprail_gateway.settle.preflight import Findings, Trial
from taprail_gateway.settle.replies import Block

# A refused payment is tried again 2, 4, 8, 16 and 32 s later: its account may have been topped up.
# That makes a minute with all the tries that it has (`schema.REFUSED_AFTER`), so that a node which
# is wrong for less than that costs no sale.
_FIRST_WAIT_MS: Final = 2_000
_WAIT_FACTOR: Final = 2

_log = structlog.get_logger("settle.payments")


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a lane has claimed, with what it takes to sign it."""

    pending: Sequence[PendingPayment]
    wrapped: Mapping[str, bytes]
    came_signed: Mapping[str, StoredSignature]


@dataclass
class PaymentCargo:
    """The cargo of one gateway's payment lanes."""

    ledger: Ledger
    chain: Chain
    custody: Custody
    live: LiveSettings
    clock: Clock
    gas: GasTable = field(default=USDC)
    """Of the token; set when it has been calibrated."""
    purpose: ClassVar[str] = "payments"

    def waiting(self, connection: Connection, lane: str, limit: int, now_ms: int) -> Waiting:
        """See `Cargo`."""
        return Waiting(*claims.waiting(connection, lane, limit, now_ms))

    def under_way(self, connection: Connection, lane: str, limit: int) -> int:
        """See `Cargo`."""
        return claims.under_way(connection, lane, limit)

    def gas_each(self) -> int:
        """See `Cargo`."""
        return self.gas.payment

    def give_back(self, connection: Connection, lane: str) -> int:
        """See `Cargo`."""
        return claims.give_back(connection, lane)

    def mark_broadcast(
        self, connection: Connection, transaction_ids: Sequence[int], at_ms: int
    ) -> None:
        """See `Cargo`."""
        transitions.mark_broadcast(connection, transaction_ids, at_ms)

    def store(
        self,
        connection: Connection,
        lease: Lease,
        nonce: int,
        parcel: Parcel,
        attempt: Attempt,
        at_ms: int,
    ) -> int:
        """See `Cargo`."""
        return transitions.bind(
            connection,
            lease,
            nonce=nonce,
            payment_ids=parcel.ids,
            attempt=attempt,
            valid_before_s=parcel.valid_before_s,
            own_ends_s=parcel.own_ends_s,
            at_ms=at_ms,
        )

    async def prepare(self, lease: Lease, limit: int, head: Block) -> Load:
        """See `Cargo`; raises ChainError or TokenPausedError when nothing can be tried out."""
        trial_until_s = head.time_s + preflight.VALIDITY_S
        claim = await self.ledger.write(
            partial(
                _claim,
                lease=lease,
                limit=limit,
                now_ms=self.clock.now_ms(),
                trial_until_s=trial_until_s,
            )
        )
        crash("settle.claimed")
        if not claim.pending:
            return Load(0)
        # In threads: some milliseconds of signing must not hold up the answer to a tap.
        signatures = await asyncio.to_thread(self._open, claim)
        ended = {each.id for each in claim.pending if signatures.has_ended(each, head.time_s)}
        tried = [each for each in claim.pending if each.id not in ended]
        trials = await asyncio.to_thread(_trials, tried, signatures, trial_until_s)
        findings = await preflight.try_out(self.chain, self.gas, trials, head)
        findings.refused |= dict.fromkeys(ended, payer_signatures.ENDED)
        crash("settle.tried_out")
        await self._put_off(claim, lease, findings)
        passed = [each for each in claim.pending if each.id not in findings.refused]
        parcels = await asyncio.to_thread(self._pack, passed, signatures, findings.with_code, head)
        return Load(len(claim.pending), parcels)

    async def _put_off(self, claim: _Claim, lease: Lease, findings: Findings) -> None:
        if not findings.refused:
            return
        refused = [each for each in claim.pending if each.id in findings.refused]
        now_ms = self.clock.now_ms()
        await self.ledger.write(
            partial(_put_off, lease=lease, refused=refused, why=findings.refused, now_ms=now_ms)
        )
        crash("settle.put_off")
        for each in refused:
            _log.warning(
                "settle.refused",
                payment=each.id,
                tries=each.preflights + 1,
                why=findings.refused[each.id],
            )

    # --- signing: in a thread -----------------------------------------------------------------

    def _open(self, claim: _Claim) -> PayerSignatures:
        keys = {payer: self.custody.unwrap(payer, key) for payer, key in claim.wrapped.items()}
        return PayerSignatures(self.chain.token.domain_separator, keys, claim.came_signed)

    def _pack(
        self,
        payments: Sequence[PendingPayment],
        signatures: PayerSignatures,
        with_code: frozenset[str],
        head: Block,
    ) -> list[Parcel]:
        """One parcel for each group; a payer with code, who may do as it likes, goes alone."""
        settings = self.live.now
        # The token goes by its chain's time, which may be ahead of ours.
        now_s = max(self.clock.now_ms() // 1000, head.time_s)
        until_s = now_s + settings.authorization_validity_s
        size = self.gas.payments_that_fit(settings.payments_per_transaction, head.gas_limit)
        return [
            self._parcel(group, signatures, until_s) for group in grouped(payments, size, with_code)
        ]

    def _parcel(
        self, group: Sequence[PendingPayment], signatures: PayerSignatures, until_s: int
    ) -> Parcel:
        """A lone payment goes straight to the token."""
        token = self.chain.token.address
        ids = tuple(each.id for each in group)
        gas = self.gas.limit([each.payee for each in group])
        signed = [signatures.call(each, until_s) for each in group]
        to, data = token, signed[0].data
        if len(group) > 1:
            to = self.chain.multicall
            data = calls.aggregate3([(token, each.data) for each in signed])
        return Parcel(ids, to, data, gas, until_s, signatures.own_ends_s(ids))


def _trials(
    payments: Sequence[PendingPayment], signatures: PayerSignatures, until_s: int
) -> list[Trial]:
    return [
        Trial(each.id, each.payer, each.payee, signatures.call(each, until_s).data)
        for each in payments
    ]


def grouped(
    payments: Sequence[PendingPayment], size: int, alone: frozenset[str]
) -> list[Sequence[PendingPayment]]:
    """Groups of at most so many, in order; those of the payers named are each by themselves."""
    together = [each for each in payments if each.payer not in alone]
    groups: list[Sequence[PendingPayment]] = [
        together[at : at + size] for at in range(0, len(together), size)
    ]
    return groups + [[each] for each in payments if each.payer in alone]


def _claim(
    connection: Connection, *, lease: Lease, limit: int, now_ms: int, trial_until_s: int
) -> _Claim:
    """Claim, and note the trial's signatures before there are any."""
    leases.guard(connection, lease)
    pending = claims.claim(connection, lease.lane, limit, now_ms)
    wrapped = wrapped_keys(connection, [each.payer for each in pending])
    ours = [each.id for each in pending if each.payer in wrapped]
    theirs = [each.id for each in pending if each.payer not in wrapped]
    claims.will_sign(connection, ours, trial_until_s)
    came_signed = card_signatures.of_payments(connection, theirs) if theirs else {}
    return _Claim(pending, wrapped, came_signed)


def _put_off(
    connection: Connection,
    *,
    lease: Lease,
    refused: Sequence[PendingPayment],
    why: Mapping[str, str],
    now_ms: int,
) -> None:
    leases.guard(connection, lease)
    short = [each.id for each in refused if why[each.id] == NOT_COVERED]
    # A refund is not given up for lack of money: it waits until there is more.
    waiting = floats.await_float(connection, short) if short else []
    alike: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for each in refused:
        if each.id in waiting:
            continue
        alike[each.preflights, why[each.id]].append(each.id)
    for (tries, reason), ids in alike.items():
        due_at_ms = now_ms + _FIRST_WAIT_MS * _WAIT_FACTOR**tries
        claims.put_off(connection, ids, due_at_ms, reason)
