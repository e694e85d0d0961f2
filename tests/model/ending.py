"""How every run ends: all faults end, and within ten blocks all is settled.

Nothing lost, nothing twice, nothing stuck. The ten blocks begin when the last fault is over, and
with it what had been set by the clock because of it: the lease of a gateway that died, the pause
before a payment that was refused is tried again. A stranger's transaction that waits in the pool
behind a nonce of ours is a fault that is still to come.

What was burnt by its holder, or refused or left out too often, needs the proof that nothing signed
for it can move money any more. That takes as long as what was signed, and is the only thing that
may; and for no other reason does a payment fail, but for an operator's word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, select

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.queries import all_lanes
from taprail_gateway.ledger.schema import REFUSED_AFTER
from taprail_gateway.settle.judge import MAX_LEFT_OUT, PROOF_DEPTH
from tests.model import judge
from tests.model.desk import CANCELLED
from tests.model.fake_chain import LOWEST_BASE_FEE_WEI
from tests.model.shop import BALANCE_UNITS, LANE_COINS_WEI
from tests.model.stage import LEASE_S, VALIDITY_S, Stage

STUCK_AFTER_BLOCKS: Final = 10
_PROOF_BLOCKS: Final = PROOF_DEPTH + STUCK_AFTER_BLOCKS

_LISTED: Final = PaymentState.CONFIRMATION_FAILED
_MAY_WAIT_FOR_PROOF: Final = frozenset({PaymentState.PENDING, _LISTED})


def settle(stage: Stage) -> list[str]:
    """End every fault, go on, and say what did not end, or ended wrongly."""
    heal(stage)
    stage.mine()  # nodes show what was put right on chain from the next block on
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
    stage.chain.strangers.clear()  # else an account is emptied again after it was filled
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
    """What is stuck after so many blocks, counted from the last that holds a stranger's use of a
    nonce of ours: what waited in a pool is a fault that strikes only there."""
    left = blocks
    while left > 0:
        stage.round()
        if _is_quiet(stage):
            return []
        is_struck = any(mined.tx_hash in stage.foreign for mined in stage.chain.head.mined)
        left = blocks if is_struck else left - 1
    books = stage.shop.ledger.read_now(judge.read_books)
    found = [books.payments[payment] for payment in judge.unsettled(books)]
    return [
        f"after {blocks} blocks: {judge.words(it)}"
        for it in found
        if it.state not in _MAY_WAIT_FOR_PROOF or not _needs_proof(stage, it)
    ]


def _is_quiet(stage: Stage) -> bool:
    """Whether nothing is open, and nothing rests on a block that is gone."""
    if stage.shop.open_payments():
        return False
    return not any(judge.gone(stage.shop.ledger.read_now(judge.read_books), stage.chain))


def _needs_proof(stage: Stage, it: judge.Payment) -> bool:
    """Whether something that was done to a payment is the cause that it is not paid."""
    is_burnt = (it.payer, it.id) in stage.chain.world.spent
    is_refused = it.preflights >= REFUSED_AFTER and it.payer in stage.tampered
    return is_burnt or is_refused or it.bindings >= MAX_LEFT_OUT


def _unproven(stage: Stage) -> list[str]:
    """What is still open although a proof could be had of it.

    One proof does for what is listed. What is pending is tried a few times more before, ever later.
    """
    books = stage.shop.ledger.read_now(judge.read_books)
    listed = [it.id for it in books.payments.values() if it.state == _LISTED]
    if not listed and _is_quiet(stage):
        return []
    for tries in range(REFUSED_AFTER):
        over_ms = stage.shop.ledger.read_now(lambda connection: _over_ms(connection, stage))
        rest_s = (over_ms - stage.clock.now_ms()) / 1_000
        stage.wait(max(rest_s, VALIDITY_S + LEASE_S if tries == 0 else 0))
        for _ in range(_PROOF_BLOCKS):
            stage.round()
        books = stage.shop.ledger.read_now(judge.read_books)
        unsettled = list(judge.unsettled(books))
        late = [payment for payment in unsettled if payment in listed]
        if late or not unsettled:
            break
    return [f"proven, and {judge.words(books.payments[it])}" for it in late or unsettled]


def _unjust(stage: Stage, books: judge.Books) -> Iterator[str]:
    """Payments that failed although nobody and nothing gave a reason for it."""
    for it in books.payments.values():
        is_cancelled = (it.failure_reason or "").startswith(CANCELLED)
        if it.state == PaymentState.FAILED and not is_cancelled and not _needs_proof(stage, it):
            yield f"payment {it.id} failed without a cause: {it.failure_reason}"
