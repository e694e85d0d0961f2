"""What a signing card is asked to sign, from the gateway's terms and its time."""

from __future__ import annotations

import pytest

from taprail_common.api.gateway import Hello
from taprail_common.eip3009 import domain_separator
from taprail_common.errors import InputError
from taprail_common.ids import payment_id
from taprail_common.wire import SIGNED_VALIDITY_S, SigningTerms, parse
from taprail_terminal.charge import TERMS_LIFE_S, ChargeMaker
from taprail_terminal.gateway_link import Greeting
from tests.support.manual_clock import ManualClock

PAYEE = "0x" + "cd" * 20
TOKEN = "0x" + "ab" * 20
GATEWAY_S = 1_800_000_000
TERMS = SigningTerms(chain_id=1, token=TOKEN, token_name="USD Coin", token_version="2", payee=PAYEE)


def greeting(received_s: float, terms: SigningTerms | None = TERMS) -> Greeting:
    hello = Hello(
        gateway_id="gw_1",
        gateway_time=GATEWAY_S * 1000,
        terminal_id="t1",
        status="active",
        merchant_id="cafe",
        merchant_name="Café",
        currency="USDC",
        decimals=6,
        signing=terms,
    )
    return Greeting(hello, 0, 1, received_s)


async def test_a_charge_is_of_this_request_and_of_the_gateways_time() -> None:
    clock = ManualClock()
    maker = ChargeMaker("t1", lambda: heard, clock)
    heard: Greeting | None = greeting(clock.monotonic_s())
    await clock.advance(30.0)
    charge = maker.make("req_1", 42)
    assert charge is not None
    assert charge.nonce.hex() == payment_id("t1", "req_1")[2:]
    assert charge.domain_separator == domain_separator("USD Coin", "2", 1, TOKEN)
    transfer = charge.by("0x" + "11" * 20)
    assert (transfer.payee, transfer.amount_units) == (PAYEE, 42)
    assert (transfer.valid_after_s, transfer.nonce) == (0, charge.nonce)
    assert transfer.valid_before_s == GATEWAY_S + 30 + SIGNED_VALIDITY_S


def test_without_terms_there_is_no_charge() -> None:
    clock = ManualClock()
    assert ChargeMaker("t1", lambda: None, clock).make("req_1", 42) is None
    without = greeting(clock.monotonic_s(), None)
    assert ChargeMaker("t1", lambda: without, clock).make("req_1", 42) is None


async def test_old_terms_are_none() -> None:
    clock = ManualClock()
    maker, heard = ChargeMaker("t1", lambda: heard, clock), greeting(clock.monotonic_s())
    await clock.advance(TERMS_LIFE_S)
    assert maker.make("req_1", 42) is not None
    await clock.advance(1.0)
    assert maker.make("req_1", 42) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chainId", "0"),
        ("chainId", '"1"' + "0" * 80),
        ("token", '"0x12"'),
        ("payee", f'"0x{"AB" * 20}"'),
        ("tokenName", f'"{"x" * 1_001}"'),
    ],
)
def test_terms_that_do_not_hold_are_refused(field: str, value: str) -> None:
    good = TERMS.model_dump_json(by_alias=True)
    assert parse(SigningTerms, good) == TERMS
    fields = {
        "chainId": "1",
        "token": f'"{TOKEN}"',
        "tokenName": '"USD Coin"',
        "tokenVersion": '"2"',
        "payee": f'"{PAYEE}"',
        field: value,
    }
    body = "{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}"
    with pytest.raises(InputError):
        parse(SigningTerms, body)
