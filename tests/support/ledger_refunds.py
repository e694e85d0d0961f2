"""Refunds as the ledger takes them, without a chain: a merchant's float, what is asked of it."""

from __future__ import annotations

import itertools
from functools import partial

from sqlalchemy import Connection

from taprail_common.payment_state import PaymentEvent
from taprail_gateway.ledger import floats, queries, refunds, transitions
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.refunds import Refund, Wanted
from taprail_gateway.ledger.transitions import Confirmed
from tests.support.ledger_fixtures import NOW_MS, Registry
from tests.support.ledger_payments import BLOCK, BLOCK_HASH, bound

FLOAT = "0x" + "f1" * 20
REQUESTER = "refund:user:merle"

_numbers = itertools.count(1)


def open_float(ledger: Ledger, registry: Registry, *, balance_units: int = 10**9) -> None:
    """Give the merchant a float, funded as of a block."""

    def work(connection: Connection) -> None:
        floats.open_float(connection, registry.merchant_id, FLOAT, b"\1", NOW_MS)
        transitions.refresh_balances(connection, {FLOAT: balance_units}, BLOCK)

    ledger.write_now(work)


def top_up(ledger: Ledger, balance_units: int, *, block: int = BLOCK) -> list[str]:
    """The float's balance as of a block, and what that lets go on."""

    def work(connection: Connection) -> list[str]:
        transitions.refresh_balances(connection, {FLOAT: balance_units}, block)
        return floats.fund(connection, NOW_MS)

    return ledger.write_now(work)


def wanted(
    sale_id: str,
    amount_units: int,
    *,
    request_id: str | None = None,
    requester: str = REQUESTER,
) -> Wanted:
    """A refund to be asked for, under a request id of its own unless one is given."""
    name = request_id or f"refund_{next(_numbers)}"
    request = f"{sale_id} {amount_units}".encode()
    return Wanted(sale_id, amount_units, requester, name, request, NOW_MS)


def asked(ledger: Ledger, sale_id: str, amount_units: int) -> Refund:
    """A refund that was taken."""
    return ledger.write_now(partial(refunds.ask, wanted=wanted(sale_id, amount_units)))


def paid_back(ledger: Ledger, refund: str, *, balance_units: int = 10**9) -> None:
    """A refund goes all the way, and leaves the float with this."""
    bound(ledger, [refund])
    place = Confirmed(refund, "0x" + "ab" * 32, BLOCK, BLOCK_HASH)
    balances = {FLOAT: balance_units}
    ledger.write_now(lambda c: transitions.complete(c, [place], balances, BLOCK, NOW_MS))


def step(ledger: Ledger, event: PaymentEvent, payment_id: str) -> None:
    """One step of a refund."""
    ledger.write_now(lambda c: transitions.apply(c, event, [payment_id], NOW_MS))


def held(ledger: Ledger, account: str = FLOAT) -> int:
    """What is held of an account."""
    return ledger.read_now(queries.held_by_account)[account]


def problems(ledger: Ledger) -> list[str]:
    """What is wrong with the ledger."""
    return ledger.read_now(queries.check_invariants)
