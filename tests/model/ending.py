"""How every run ends: all faults end, and within ten blocks all is settled.

Nothing lost, nothing twice, nothing stuck. The ten blocks begin when the last fault is over, and
with it what had been set by the clock because of it: the lease of a gateway that died, the pause
before a payment that was refused is tried again.

A payment whose account was tampered with may need the proof that nothing signed for it can move
money any more; that takes as long as what was signed, and is the only thing that may.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, select

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.queries import all_lanes
from taprail_gateway.settle.judge import MAX_BINDINGS, PROOF_DEPTH
from tests.model import judge
from tests.model.desk import CANCELLED
from tests.model.fake_chain import LOWEST_BASE_FEE_WEI
from tests.model.shop import BALANCE_UNITS, LANE_COINS_WEI
from tests.model.stage import LEASE_S, VALIDITY_S, Stage

STUCK_AFTER_BLOCKS: Final = 10
_PROOFS: Final = 4
"""How often the clock runs past all that was signed: three transactions may go by in vain."""
_PROOF_BLOCKS: Final = PROOF_DEPTH + STUCK_AFTER_BLOCKS

_MAY_WAIT_FOR_PROOF: Final = frozenset({PaymentState.PENDING, PaymentState.CONFIRMATION_FAILED})


def settle(stage: Stage) -> list[str]:
    """End every fault, go on, and say what did not end, or ended wrongly."""
    heal(stage)
    over_ms = stage.shop.ledger.read_now(lambda connection: _over_ms(connection, stage))
    while stage.clock.now_ms() < over_ms:
        stage.round()
    found = _stuck_after(stage, STUCK_AFTER_BLOCKS)
    if not found:
        found = _unproven(stage)
    books = stage.shop.ledger.read_now(judge.read_books)
    found += [*stage.problems(), *judge.gone(books, stage.chain), *_unjust(stage, books)]
    if found:
        found += [str(lane) for lane in stage.shop.ledger.read_now(all_lanes)]
        found += [f"hindered: {it.hindered}" for it in stage.gateways if it.hindered]
    return found


def heal(stage: Stage) -> None:
    """End every fault; what it has caused is still there."""
    for trouble in stage.troubles:
        trouble.end()
    for gateway in stage.gateways:
        gateway.process.points_left = gateway.hold_after = None
    stage.chain.base_fee_wei = LOWEST_BASE_FEE_WEI
    for lane in range(len(stage.lanes)):
        stage.set_coins(lane, LANE_COINS_WEI)
    world = stage.chain.world
    for account in sorted(stage.tampered):
        world.tokens[account] = BALANCE_UNITS
        world.delegated.discard(account)
        world.blocked.discard(account)
    world.is_paused = False
    stage.desk.gives_all_back()
    if not stage.gateways:
        stage.start_gateway()


def _over_ms(connection: Connection, stage: Stage) -> int:
    """When the last of what a fault has set by the clock is over."""
    held = {
        (lease.name, lease.owner)
        for gateway in stage.gateways
        for lease in gateway.settlement.keeper.leases.values()
    }
    lease, payment = schema.leases.c, schema.payments.c
    leases = connection.execute(select(lease.name, lease.owner, lease.until_ms))
    due = select(payment.due_at_ms).where(payment.state == PaymentState.PENDING.value)
    ends: list[int] = [
        until_ms
        for name, owner, until_ms in leases
        if owner is not None and (name, owner) not in held
    ]
    return max([0, *ends, *(int(at_ms or 0) for at_ms in connection.scalars(due))])


def _stuck_after(stage: Stage, blocks: int) -> list[str]:
    """What is stuck after so many blocks."""
    for _ in range(blocks):
        stage.round()
        if _is_quiet(stage):
            return []
    books = stage.shop.ledger.read_now(judge.read_books)
    found = [it for it in judge.unsettled(books) if not _may_wait(stage, books, it)]
    return [f"after {blocks} blocks: {judge.words(books.payments[each])}" for each in found]


def _is_quiet(stage: Stage) -> bool:
    """Whether nothing is open, and nothing rests on a block that is gone."""
    if stage.shop.open_payments():
        return False
    return not any(judge.gone(stage.shop.ledger.read_now(judge.read_books), stage.chain))


def _may_wait(stage: Stage, books: judge.Books, payment: str) -> bool:
    it = books.payments[payment]
    is_tampered = it.payer in stage.tampered or stage.token_was_paused
    return is_tampered and it.state in _MAY_WAIT_FOR_PROOF


def _unproven(stage: Stage) -> list[str]:
    """What is still open when all that was signed for it has ended, and a proof could be had."""
    for _ in range(_PROOFS):
        if _is_quiet(stage):
            return []
        stage.wait(VALIDITY_S + LEASE_S)
        for _ in range(_PROOF_BLOCKS):
            stage.round()
    books = stage.shop.ledger.read_now(judge.read_books)
    return [f"in the end: {judge.words(books.payments[it])}" for it in judge.unsettled(books)]


def _unjust(stage: Stage, books: judge.Books) -> Iterator[str]:
    """Payments that failed although nobody and nothing gave a reason for it."""
    for it in books.payments.values():
        if it.state != PaymentState.FAILED or it.payer in stage.tampered or stage.token_was_paused:
            continue
        if not (it.failure_reason or "").startswith(CANCELLED) and it.bindings < MAX_BINDINGS:
            yield f"payment {it.id} failed without a cause: {it.failure_reason}"
