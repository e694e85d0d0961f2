"""`taprail admin payment refund` and `merchant float`, on a real ledger."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from taprail_common.errors import InputError, OperatorError
from taprail_gateway.ledger import queries, schema
from taprail_gateway.ledger.actions import history
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.floats import WAITS
from taprail_gateway.ledger.refunds import (
    NoFloatError,
    NotRefundableError,
    RequestReusedError,
    TooMuchError,
)
from tests.support.admin_fixtures import Admin
from tests.support.ledger_fixtures import Registry, seed_registry
from tests.support.ledger_payments import accepted, completed
from tests.support.ledger_refunds import open_float

PAID = 3_000_000
WHY = ("--reason", "it was cold")


@pytest.fixture
def ledger(admin: Admin) -> Ledger:
    """The commands' own ledger."""
    return admin.ledger()


@pytest.fixture
def registry(ledger: Ledger) -> Registry:
    return seed_registry(ledger)


@pytest.fixture
def sale(ledger: Ledger, registry: Registry) -> str:
    return completed(ledger, registry, amount=PAID)[0]


def test_a_merchant_gets_one_float_and_keeps_it(admin: Admin) -> None:
    made = admin.json("merchant", "float", "kiosk")
    assert made["merchant"] == "kiosk"
    assert (made["balanceUnits"], made["heldUnits"], made["shortUnits"]) == (0, 0, 0)
    assert admin.json("merchant", "float", "kiosk") == made
    assert made["account"] in admin("merchant", "float", "kiosk")
    wrapped = select(schema.accounts.c.wrapped_key).where(
        schema.accounts.c.address == made["account"]
    )
    assert admin.do(lambda c: c.scalar(wrapped)) is not None
    with pytest.raises(OperatorError, match="no merchant 'nobody'"):
        admin("merchant", "float", "nobody")


def test_a_sale_is_refunded_in_part_and_then_the_rest(
    admin: Admin, ledger: Ledger, registry: Registry, sale: str
) -> None:
    open_float(ledger, registry)
    part = admin.json("payment", "refund", sale[:12], "--amount", "1.25", *WHY)
    assert (part["sale_id"], part["amount_units"], part["state"]) == (sale, 1_250_000, "pending")
    assert "1.75 TUSD" in admin("payment", "refund", sale, *WHY)
    with pytest.raises(TooMuchError, match=f"0 of {PAID} units"):
        admin("payment", "refund", sale, *WHY)
    shown = admin.json("payment", "show", sale)
    assert [each["amount_units"] for each in shown["refunds"]] == [1_250_000, 1_750_000]
    assert "1.25 TUSD" in admin("payment", "show", sale)
    assert admin.json("payment", "show", part["id"])["refund_of"] == sale
    done = admin.do(lambda c: history(c, 10))
    assert [(each.action, each.subject, each.reason) for each in done] == [
        ("refund", sale, "it was cold")
    ] * 2
    assert {"refund": part["id"], "units": 1_250_000} in [each.after for each in done]
    assert admin.do(queries.check_invariants) == []


@pytest.mark.parametrize("amount", [(), ("--amount", "1.00")])
def test_a_named_request_is_carried_out_once(
    admin: Admin, ledger: Ledger, registry: Registry, sale: str, amount: tuple[str, ...]
) -> None:
    open_float(ledger, registry)
    named = ("payment", "refund", sale, "--request-id", "till-7", *WHY)
    first = admin.json(*named, *amount)
    assert admin.json(*named, *amount) == first
    assert len(admin.do(lambda c: history(c, 10))) == 1
    with pytest.raises(RequestReusedError):
        admin(*named, "--amount", "2.00")
    with pytest.raises(InputError, match="request-id"):
        admin("payment", "refund", sale, "--request-id", "no spaces", *WHY)


def test_one_that_waits_says_for_what_and_can_be_cancelled(
    admin: Admin, ledger: Ledger, registry: Registry, sale: str
) -> None:
    with pytest.raises(NoFloatError, match="taprail admin merchant float merchant_1"):
        admin("payment", "refund", sale, *WHY)
    assert admin.json("merchant", "float", registry.merchant_id)["shortUnits"] == 0
    said = admin("payment", "refund", sale, "--amount", "1.00", *WHY)
    assert WAITS in said
    assert "1.00 TUSD" in admin("merchant", "float", registry.merchant_id)
    [alert] = admin.json("alert", "list")
    assert alert["kind"] == "float_short"
    [refund] = admin.json("payment", "show", sale)["refunds"]
    admin("payment", "cancel", refund["id"], *WHY)
    assert admin.json("payment", "show", sale)["refunds"][0]["state"] == "failed"
    admin("check")


def test_what_is_not_paid_is_not_refunded(admin: Admin, ledger: Ledger, registry: Registry) -> None:
    (pending,) = accepted(ledger, registry)
    with pytest.raises(NotRefundableError, match="is pending"):
        admin("payment", "refund", pending, *WHY)
