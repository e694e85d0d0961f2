"""Gas limits by table, against what was measured on real token code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_gateway.settle.gas import SMALL_BATCH, USDC

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
    assert USDC.limit(payees(count, distinct)) >= used + FIRST_TOKENS_GAS * distinct


def test_a_lone_payment_fits() -> None:
    assert USDC.limit(payees(1, 1)) >= USDC_DIRECT_GAS + FIRST_TOKENS_GAS


@given(st.integers(1, 99), st.integers(1, 20))
def test_gas_rises_with_every_payment_but_for_the_step_to_large_batches(
    count: int, distinct: int
) -> None:
    if count != SMALL_BATCH:
        assert USDC.limit(payees(count + 1, distinct)) > USDC.limit(payees(count, distinct))


@given(st.integers(1, 100), st.integers(10**5, 10**9))
def test_what_fits_takes_half_a_block_and_no_more_than_a_transaction_may(
    wanted: int, block_gas_limit: int
) -> None:
    fitting = USDC.payments_that_fit(wanted, block_gas_limit)
    assert 1 <= fitting <= wanted
    if fitting > 1:
        gas = USDC.limit(payees(fitting, fitting))
        assert gas <= min(block_gas_limit // 2, 2**24)


def test_a_small_block_takes_fewer_payments() -> None:
    assert USDC.payments_that_fit(50, 30_000_000) == 50
    assert USDC.payments_that_fit(50, 4_000_000) == 24
    assert USDC.payments_that_fit(50, 100_000) == 1
