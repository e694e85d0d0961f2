"""Refunds that wait for money: a merchant's float that is short, and those of others beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import Connection

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger import (
    alerts,
    by_hand,
    claims,
    floats,
    queries,
    refund_shares,
    schema,
    transitions,
)
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.database import Ledger
from tests.support.ledger_fixtures import LANE, NOW_MS, Registry, on_both_engines, seed_registry
from tests.support.ledger_payments import BLOCK, accepted, completed
from tests.support.ledger_refunds import (
    FLOAT,
    asked,
    held,
    open_float,
    paid_back,
    problems,
    top_up,
)

pytestmark = on_both_engines

PAID = 100
BY = By("olga", NOW_MS + 1_000, "the shop is closed")


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger)


@pytest.fixture
def sale(ledger: Ledger, registry: Registry) -> str:
    """A completed sale of a merchant with a float that covers whatever comes."""
    open_float(ledger, registry)
    (sale,) = completed(ledger, registry, amount=PAID)
    return sale


def state_of(ledger: Ledger, payment: str) -> queries.Payment:
    found = ledger.read_now(lambda c: queries.payment(c, payment))
    assert found is not None
    return found


def given_back(ledger: Ledger, sale: str) -> int:
    return ledger.read_now(partial(refund_shares.refunded_units, sale_id=sale))


def claimable(ledger: Ledger) -> list[str]:
    found = ledger.write_now(lambda c: claims.claim(c, LANE, 10, NOW_MS + 10**9))
    return [each.id for each in found]


def open_alerts(ledger: Ledger) -> list[tuple[str, str]]:
    return [(each.kind, each.subject) for each in ledger.read_now(alerts.open_alerts)]


async def test_what_the_float_does_not_cover_waits_and_goes_on_by_itself(
    ledger: Ledger, registry: Registry
) -> None:
    open_float(ledger, registry, balance_units=0)
    (sale,) = completed(ledger, registry, amount=PAID)
    refund = asked(ledger, sale, 40)
    assert refund.failure_reason == floats.WAITS
    assert claimable(ledger) == []
    assert open_alerts(ledger) == [("float_short", registry.merchant_id)]
    assert ledger.read_now(floats.want_attention)
    assert problems(ledger) == []
    assert top_up(ledger, 39) == []
    assert open_alerts(ledger) != []
    assert top_up(ledger, 40) == [refund.id]
    assert claimable(ledger) == [refund.id]
    assert state_of(ledger, refund.id).failure_reason is None
    assert open_alerts(ledger) == []
    assert not ledger.read_now(floats.want_attention)
    assert problems(ledger) == []


async def test_a_float_covers_each_unit_once(ledger: Ledger, registry: Registry) -> None:
    open_float(ledger, registry, balance_units=50)
    (sale,) = completed(ledger, registry, amount=PAID)
    goes, waits, small = (asked(ledger, sale, units) for units in (40, 20, 10))
    assert set(claimable(ledger)) == {goes.id, small.id}, "none waits for another"
    float_ = ledger.read_now(partial(floats.float_of, merchant_id=registry.merchant_id))
    assert float_ is not None
    assert (float_.account, float_.short_units) == (FLOAT, 20)
    assert top_up(ledger, 69) == []
    paid_back(ledger, goes.id, balance_units=29)
    assert top_up(ledger, 29) == []
    assert top_up(ledger, 30) == [waits.id]
    assert problems(ledger) == []


async def test_one_that_waits_can_be_cancelled(ledger: Ledger, registry: Registry) -> None:
    open_float(ledger, registry, balance_units=0)
    (sale,) = completed(ledger, registry, amount=PAID)
    refund = asked(ledger, sale, PAID)
    ledger.write_now(partial(by_hand.cancel, payment_id=refund.id, by=BY))
    assert state_of(ledger, refund.id).state is PaymentState.FAILED
    assert (held(ledger), given_back(ledger, sale)) == (0, 0)
    assert top_up(ledger, 10**6) == []
    assert open_alerts(ledger) == [], "nobody waits any more"
    assert problems(ledger) == []


async def test_only_what_a_float_pays_is_sent_back_to_wait(
    ledger: Ledger, registry: Registry, sale: str
) -> None:
    refund = asked(ledger, sale, 10)
    (other,) = accepted(ledger, registry)
    ids = [refund.id, other]
    assert ledger.write_now(lambda c: floats.await_float(c, ids)) == [refund.id]
    assert claimable(ledger) == [other]
    assert problems(ledger) == []
    assert top_up(ledger, 10**6) == [refund.id]


# --- two merchants ----------------------------------------------------------------------------

OTHER_FLOAT = "0x" + "f2" * 20


@pytest.fixture
def other(ledger: Ledger, registry: Registry) -> Registry:
    """Another merchant, with an empty float."""

    def work(connection: Connection) -> None:
        shop = {"name": "Kiosk", "account": "0x" + "22" * 20, "status": "active"}
        row = {"id": "merchant_2", **shop, "created_at_ms": NOW_MS}
        connection.execute(schema.merchants.insert().values(row))
        floats.open_float(connection, "merchant_2", OTHER_FLOAT, b"\1", NOW_MS)

    ledger.write_now(work)
    return replace(registry, merchant_id="merchant_2")


def fund(ledger: Ledger, most: int, **balances: int) -> list[str]:
    """Set what the two floats have, and let as many refunds go on."""
    held_by = {FLOAT: balances["ours"], OTHER_FLOAT: balances["theirs"]}

    def work(connection: Connection) -> list[str]:
        transitions.refresh_balances(connection, held_by, BLOCK)
        return floats.fund(connection, NOW_MS, most=most)

    return ledger.write_now(work)


async def test_an_empty_float_starves_no_other(
    ledger: Ledger, registry: Registry, other: Registry
) -> None:
    open_float(ledger, registry, balance_units=0)
    (ours,) = completed(ledger, registry, amount=PAID)
    (theirs,) = completed(ledger, other, amount=PAID)
    waiting = sorted(asked(ledger, ours, 10).id for _ in range(4))
    their_own = sorted(asked(ledger, theirs, 10).id for _ in range(2))
    assert fund(ledger, 2, ours=9, theirs=30) == their_own
    assert open_alerts(ledger) == [("float_short", registry.merchant_id)]
    assert fund(ledger, 2, ours=25, theirs=30) == waiting[:2]
    assert open_alerts(ledger) == [("float_short", registry.merchant_id)]
    assert problems(ledger) == []


async def test_floats_take_turns_and_no_alert_ends_while_something_waits(
    ledger: Ledger, registry: Registry, other: Registry
) -> None:
    open_float(ledger, registry, balance_units=0)
    (ours,) = completed(ledger, registry, amount=PAID)
    (theirs,) = completed(ledger, other, amount=PAID)
    waiting = sorted(asked(ledger, ours, 10).id for _ in range(3))
    their_own = sorted(asked(ledger, theirs, 10).id for _ in range(3))
    both = [("float_short", "merchant_1"), ("float_short", "merchant_2")]
    assert open_alerts(ledger) == both
    rich = {"ours": 30, "theirs": 30}
    assert set(fund(ledger, 2, **rich)) == {waiting[0], their_own[0]}
    assert open_alerts(ledger) == both, "something of each still waits"
    assert set(fund(ledger, 4, **rich)) == {*waiting[1:], *their_own[1:]}
    assert open_alerts(ledger) == []
    assert problems(ledger) == []
