"""What must be true after every step, judged by the chain's own transfers and by signed bytes.

Beside the ledger's own invariants: a completed payment is on the chain, a failed one is not and
never can be, nothing moved twice, nothing left a gateway before it was stored, and no nonce carries
anything but versions of one transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from taprail_common.payment_state import HOLDING, PaymentState
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.invariants import check_invariants
from tests.model import signed
from tests.model.fake_chain import FakeChain
from tests.model.world import CHAIN_ID


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as the ledger has it."""

    id: str
    state: str
    payer: str
    payee: str
    amount_units: int
    tx_hash: str | None
    block_number: int | None
    block_hash: str | None
    bindings: int
    signed_until_s: int
    preflights: int
    failure_reason: str | None


@dataclass(frozen=True, slots=True)
class Version:
    """A signed version of a transaction as the ledger has it."""

    lane: str
    nonce: int
    tx_hash: str
    kind: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Books:
    """All of the ledger that is judged, from one snapshot."""

    problems: list[str]
    payments: dict[str, Payment]
    versions: list[Version]
    balances: dict[str, tuple[int, int]]
    """account → units, at block"""
    alerts: frozenset[str]
    """The kinds of those that were ever raised."""


def read_books(connection: Connection) -> Books:
    """Read everything."""
    return Books(
        check_invariants(connection),
        {row[0]: Payment(*row) for row in connection.execute(_PAYMENTS)},
        [Version(*row) for row in connection.execute(_VERSIONS)],
        {row[0]: (row[1], row[2]) for row in connection.execute(_BALANCES)},
        frozenset(connection.scalars(_ALERTS)),
    )


# Made once: they are run after every step.
_a, _b, _t = schema.attempts.c, schema.accounts.c, schema.chain_transactions.c
_PAYMENTS: Final = select(*(schema.payments.c[name] for name in Payment.__slots__))
_VERSIONS: Final = (
    select(_t.lane, _t.nonce, _a.tx_hash, _a.kind, _a.raw)
    .join_from(schema.attempts, schema.chain_transactions)
    .order_by(_t.lane, _t.nonce, _a.created_at_ms)
)
_BALANCES: Final = select(_b.address, _b.balance_units, _b.balance_block)
_ALERTS: Final = select(schema.alerts.c.kind)


def problems(books: Books, chain: FakeChain, foreign: Sequence[str]) -> Iterator[str]:
    """One sentence for each thing that is wrong; `foreign`: hashes sent by others on our keys."""
    yield from books.problems
    yield from _moved(books, chain)
    yield from _completed(books, chain)
    yield from _failed(books, chain)
    yield from _versions(books)
    yield from _left(books, chain, set(foreign))


def _moved(books: Books, chain: FakeChain) -> Iterator[str]:
    for nonce, places in chain.moved().items():
        payment = books.payments.get(nonce)
        if payment is None:
            continue  # a holder's own
        if len(places) > 1:
            yield f"payment {nonce} moved {len(places)} times"


def _completed(books: Books, chain: FakeChain) -> Iterator[str]:
    moved = chain.moved()
    for it in books.payments.values():
        if it.state != PaymentState.COMPLETED:
            continue
        block = chain.find(it.block_hash)
        if block is None:
            continue  # gone, which has still to be noticed: see `gone`
        places = [place for place in moved.get(it.id, []) if place[0] is block]
        wanted = (it.payer, it.payee, it.amount_units)
        if [(place[1].tx_hash, place[2]) for place in places] != [(it.tx_hash, wanted)]:
            yield f"payment {it.id} is completed, its transfer is not in block {block.number}"


def _failed(books: Books, chain: FakeChain) -> Iterator[str]:
    failed = {it.id: it for it in books.payments.values() if it.state == PaymentState.FAILED}
    if not failed:
        return
    moved = chain.moved()
    for it in failed.values():
        if any(place[2] == (it.payer, it.payee, it.amount_units) for place in moved.get(it.id, [])):
            yield f"payment {it.id} is failed, its transfer is on the chain"
    for each in _all_authorizations(books, chain):
        payment = failed.get(each.nonce)
        if payment is not None and _may_run(each, chain):
            yield (
                f"payment {payment.id} is failed ({payment.failure_reason}), an authorization of it"
                f" holds until {each.valid_before_s}, the chain is at {chain.head.time_s}"
            )


def _all_authorizations(books: Books, chain: FakeChain) -> Iterator[signed.Authorization]:
    for version in books.versions:
        yield from signed.authorizations(signed.transaction(version.raw).data)
    yield from chain.public_authorizations()


def _may_run(it: signed.Authorization, chain: FakeChain) -> bool:
    """Whether the next block could still carry it out."""
    if (it.payer, it.nonce) in chain.world.spent:
        return False
    return it.valid_before_s > chain.head.time_s + 1


def _versions(books: Books) -> Iterator[str]:
    """Each nonce is bound to the versions of one transaction, and to what it says it is."""
    carried: defaultdict[tuple[str, int], set[frozenset[str]]] = defaultdict(set)
    for version in books.versions:
        it = signed.transaction(version.raw)
        place = (version.lane, version.nonce)
        if (it.sender, it.nonce, it.tx_hash, it.chain_id) != (*place, version.tx_hash, CHAIN_ID):
            yield f"transaction {version.tx_hash} is stored as another than it is"
        authorizations = signed.authorizations(it.data)
        if version.kind == "noop":
            if it.data or it.value_wei or it.to != it.sender:
                yield f"the no-op {version.tx_hash} does something"
            continue
        carried[place].add(frozenset(each.nonce for each in authorizations))
        for each in authorizations:
            payment = books.payments.get(each.nonce)
            wanted = payment and (payment.payer, payment.payee, payment.amount_units)
            if (each.payer, each.payee, each.amount_units) != wanted:
                yield f"transaction {version.tx_hash} carries what nobody bought"
            elif payment and each.valid_before_s > payment.signed_until_s:
                yield f"payment {payment.id} was signed for longer than it says"
    for (lane, nonce), contents in carried.items():
        if len(contents) != 1:
            yield f"nonce {nonce} of lane {lane} was used for {len(contents)} transactions"


def _left(books: Books, chain: FakeChain, foreign: set[str]) -> Iterator[str]:
    """What left was stored before; what was asked about was counted before."""
    stored = {version.tx_hash for version in books.versions}
    for tx_hash in chain.offered:
        if tx_hash not in stored and tx_hash not in foreign:
            yield f"transaction {tx_hash} left before it was stored"
    for each in chain.asked:
        payment = books.payments.get(each.nonce)
        if payment is not None and payment.signed_until_s < each.valid_before_s:
            yield f"payment {each.nonce} was shown signed for longer than it says"


def overdrawn(books: Books, chain: FakeChain) -> Iterator[str]:
    """Accounts that promise more than they have, while nobody but us moves their money."""
    moved = chain.moved()
    promised: defaultdict[str, int] = defaultdict(int)
    for it in books.payments.values():
        if it.state not in HOLDING:
            continue
        at_block = books.balances[it.payer][1]
        if not any(place[0].number <= at_block for place in moved.get(it.id, [])):
            promised[it.payer] += it.amount_units
    for account, units in promised.items():
        if units > books.balances[account][0]:
            yield f"account {account} promises {units} of {books.balances[account][0]} units"


def unsettled(books: Books) -> Iterator[str]:
    """The payments that are still open."""
    return (it.id for it in books.payments.values() if it.state in HOLDING)


def gone(books: Books, chain: FakeChain) -> Iterator[str]:
    """What rests on a block that is gone, and has not been noticed."""
    for it in books.payments.values():
        if it.state == PaymentState.COMPLETED and chain.find(it.block_hash) is None:
            yield f"payment {it.id} is completed in a block that is gone"


def words(it: Payment) -> str:
    """A payment that is not settled, for people."""
    return f"payment {it.id} is {it.state}, bound {it.bindings} times ({it.failure_reason})"
