"""Gas by table and fees by the base fee, against what was measured on real token code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_gateway.settle.errors import FeeCapError
from taprail_gateway.settle.fees import gas_limit, payments_that_fit, quote

GWEI = 10**9
# Gas used by the published USDC code through aggregate3 with as many payees as payments can have
# there (20), and what a payee's first tokens cost more.
USDC_BATCH_GAS = {10: 580_000, 25: 1_375_000, 50: 2_600_000, 100: 5_100_000}
USDC_DIRECT_GAS = 86_000
FIRST_TOKENS_GAS = 17_100


def payees(count: int, distinct: int) -> list[str]:
    return [f"0x{i % distinct:040x}" for i in range(count)]


@pytest.mark.parametrize(("count", "used"), USDC_BATCH_GAS.items())
def test_a_batch_of_usdc_fits_even_when_every_payee_is_new(count: int, used: int) -> None:
    distinct = min(count, 20)
    assert gas_limit(payees(count, distinct)) >= used + FIRST_TOKENS_GAS * distinct


def test_a_lone_payment_fits() -> None:
    assert gas_limit(payees(1, 1)) >= USDC_DIRECT_GAS + FIRST_TOKENS_GAS


@given(st.integers(1, 99), st.integers(1, 20))
def test_gas_rises_with_every_payment_but_for_the_step_to_large_batches(
    count: int, distinct: int
) -> None:
    if count != 10:
        assert gas_limit(payees(count + 1, distinct)) > gas_limit(payees(count, distinct))


@given(st.integers(1, 100), st.integers(10**5, 10**9))
def test_what_fits_takes_half_a_block_and_no_more_than_a_transaction_may(
    wanted: int, block_gas_limit: int
) -> None:
    fitting = payments_that_fit(wanted, block_gas_limit)
    assert 1 <= fitting <= wanted
    if fitting > 1:
        gas = gas_limit(payees(fitting, fitting))
        assert gas <= min(block_gas_limit // 2, 2**24)


def test_a_small_block_takes_fewer_payments() -> None:
    assert payments_that_fit(50, 30_000_000) == 50
    assert payments_that_fit(50, 4_000_000) == 24
    assert payments_that_fit(50, 100_000) == 1


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 10**12))
def test_fees_survive_a_doubled_base_fee_or_reach_the_cap(base: int, tip: int, cap: int) -> None:
    if base + tip > cap:
        with pytest.raises(FeeCapError, match="over the cap"):
            quote(base, tip, cap)
        return
    fees = quote(base, tip, cap)
    assert fees.max_fee_wei == min(2 * base + tip, cap)
    assert base + tip <= fees.max_fee_wei <= cap
    assert fees.priority_fee_wei == tip


def test_the_refusal_says_in_gwei_what_is_asked_and_allowed() -> None:
    with pytest.raises(FeeCapError, match=r"asks 31.5 gwei per gas, over the cap of 30:"):
        quote(30 * GWEI, 3 * GWEI // 2, 30 * GWEI)
