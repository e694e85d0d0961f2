"""What a transaction may cost: gas by table, fees by the block's base fee. Pure arithmetic.

It never asks a node to estimate: for `aggregate3` with allowFailure `eth_estimateGas` finds the
limit at which the outer call succeeds while the payments inside silently fail.

Twice the base fee stays minable through at least five full blocks of rises (EIP-1559: at most 1/8
a block). What has become too cheap after that is signed once more with `bumped` fees (see `stuck`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from taprail_gateway.settle.errors import FeeCapError

WEI_PER_GWEI: Final = 10**9

# Measured with the published USDC code (FiatTokenV2_2 behind its proxy), which costs more than any
# other EIP-3009 token that was tried: 92 k for one payment through aggregate3, 58 k each for ten
# payees, 52 k each for fifty; 86 k direct; 17.1 k more for a payee's first tokens ever (a zero
# storage slot is written: EIP-2929 and EIP-2200).
_BATCH_BASE_GAS: Final = 50_000
_PAYMENT_GAS: Final = 57_000
_SMALL_BATCH_PAYMENT_GAS: Final = 62_000
_SMALL_BATCH: Final = 10
_DIRECT_GAS: Final = 110_000
_NEW_PAYEE_GAS: Final = 17_100

# EIP-7825: no transaction may have a higher gas limit.
_MAX_TRANSACTION_GAS: Final = 2**24
# A limit that fills the block waits for an empty one; half a block leaves room to be fitted in.
_BLOCK_SHARE: Final = 2


class Fees(NamedTuple):
    """What a transaction offers per gas (EIP-1559)."""

    max_fee_wei: int
    priority_fee_wei: int


def quote(base_fee_wei: int, priority_fee_wei: int, cap_wei: int) -> Fees:
    """Twice the base fee and the tip, at most the cap; FeeCapError when that cannot be mined."""
    if base_fee_wei + priority_fee_wei > cap_wei:
        raise FeeCapError(
            f"the chain asks {_gwei(base_fee_wei + priority_fee_wei)} gwei per gas, "
            f"over the cap of {_gwei(cap_wei)}",
            fix="wait until it falls, or raise max_fee_cap_gwei",
        )
    return Fees(min(2 * base_fee_wei + priority_fee_wei, cap_wei), priority_fee_wei)


def bumped(old: Fees, wanted: Fees, cap_wei: int) -> Fees | None:
    """Fees at which nodes take a transaction in the place of one that lies in their pool.

    Both rise by an eighth at least, rounded up (geth wants a tenth, others an eighth), or to what
    is wanted now. None when that would exceed the cap: then the old one has to wait.
    """
    fees = Fees(
        max(_raised(old.max_fee_wei), wanted.max_fee_wei),
        max(_raised(old.priority_fee_wei), wanted.priority_fee_wei),
    )
    if fees.max_fee_wei > cap_wei or fees.priority_fee_wei > fees.max_fee_wei:
        return None
    return fees


def _raised(wei: int) -> int:
    # The 1 is for a tip of nothing, which no share of itself would ever raise.
    return max(wei + 1, -(-wei * 9 // 8))


def gas_limit(payees: Sequence[str]) -> int:
    """Gas limit of a transaction with one payment per payee given; a lone one goes direct.

    Every distinct payee is counted as if these were its first tokens: unused gas is given back,
    too little loses the whole batch.
    """
    new_payees_gas = _NEW_PAYEE_GAS * len(set(payees))
    if len(payees) == 1:
        return _DIRECT_GAS + new_payees_gas
    each = _PAYMENT_GAS if len(payees) > _SMALL_BATCH else _SMALL_BATCH_PAYMENT_GAS
    return _BATCH_BASE_GAS + each * len(payees) + new_payees_gas


def full_batch_gas(payments: int) -> int:
    """About what a transaction of so many payments uses; limits are higher, blocks fill by use."""
    return _BATCH_BASE_GAS + _PAYMENT_GAS * payments


def payments_that_fit(wanted: int, block_gas_limit: int) -> int:
    """How many of the wanted payments one transaction may hold on a chain with such blocks."""
    room = min(block_gas_limit // _BLOCK_SHARE, _MAX_TRANSACTION_GAS) - _BATCH_BASE_GAS
    return max(1, min(wanted, room // (_SMALL_BATCH_PAYMENT_GAS + _NEW_PAYEE_GAS)))


def _gwei(wei: int) -> str:
    return f"{wei / WEI_PER_GWEI:.9g}"
