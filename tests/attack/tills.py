"""Attacks on charges of a till: paid twice, by another amount, terminal, or after their end."""

from __future__ import annotations

from functools import partial
from typing import Final

from sqlalchemy import Connection, update

from taprail_common.api.charges import ChargeStatus
from taprail_common.ids import new_id
from taprail_gateway.charges import Asked, Charge
from taprail_gateway.ledger import charges, schema
from tests.attack.letters import APPROVED, Kind, Letter, Steps, declined
from tests.attack.scene import Scene
from tests.attack.victims import BESIDE

CLOSED: Final = declined("charge_closed")
MISMATCH: Final = declined("charge_mismatch")
UNKNOWN: Final = declined("charge_unknown")


def asked(s: Scene) -> Charge:
    """A charge of a till, at a terminal of its own: each takes one at a time."""
    terminal = s.shop.add_terminal(new_id("till"))
    now_ms, amount = s.now_ms, s.amount()

    def make(connection: Connection) -> Charge:
        place = charges.place(connection, terminal)
        assert place is not None
        wanted = Asked(amount, "TUSD", new_id("order"), 300)
        return charges.make(connection, place, wanted, "bob", None, now_ms)[0]

    return s.shop.gateway.ledger.write_now(make)


def paying(s: Scene, charge: Charge, amount: int | None = None) -> Letter:
    """A fresh tap for this charge."""
    wanted = charge.amount_units if amount is None else amount
    return s.tap(chargeId=charge.id, terminalId=charge.terminal_id, amount=wanted)


def paid_twice(s: Scene) -> Steps:
    charge = asked(s)
    yield paying(s, charge), APPROVED
    yield paying(s, charge), CLOSED
    yield paying(s, charge, charge.amount_units + 1), CLOSED


def another_amount(s: Scene) -> Steps:
    for more in (1, -1):
        charge = asked(s)
        yield paying(s, charge, charge.amount_units + more), MISMATCH
        yield paying(s, charge), CLOSED  # the till was told of the decline


def at_another_terminal(s: Scene) -> Steps:
    charge = asked(s)
    yield s.tap(chargeId=charge.id, terminalId=BESIDE, amount=charge.amount_units), UNKNOWN
    yield paying(s, charge), APPROVED  # what others say of it does not end it


def that_nobody_asked_for(s: Scene) -> Steps:
    yield s.tap(chargeId=new_id("chg")), UNKNOWN


def after_its_cancel(s: Scene) -> Steps:
    charge = asked(s)
    end = partial(
        charges.end,
        terminal_id=charge.terminal_id,
        charge_id=charge.id,
        status=ChargeStatus.CANCELLED,
        at_ms=s.now_ms,
    )
    s.shop.gateway.ledger.write_now(end)
    yield paying(s, charge), declined("charge_cancelled")


def after_its_deadline(s: Scene) -> Steps:
    charge = asked(s)
    c = schema.charges.c
    over = update(schema.charges).where(c.id == charge.id).values(deadline_ms=s.now_ms - 1)
    s.shop.gateway.ledger.write_now(lambda connection: connection.execute(over))
    yield paying(s, charge), declined("charge_expired")


KINDS: Final = tuple(
    Kind(f"charge: {play.__name__}", "sun", play)
    for play in (
        paid_twice,
        another_amount,
        at_another_terminal,
        that_nobody_asked_for,
        after_its_cancel,
        after_its_deadline,
    )
)
