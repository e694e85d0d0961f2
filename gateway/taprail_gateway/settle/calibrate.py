"""A token's own gas figures, found at start by trying out payments that move nothing.

`aggregate3` in which no call may fail, of authorizations over zero units by keys made for it and
thrown away: there an estimate means what it says, because the outer call succeeds only when every
payment in it does. What moving real units costs more is known from the EVM's price of storage.

Three questions, once, in one request. Whatever goes wrong, the measured figures of USDC stand.
"""

from __future__ import annotations

from typing import Final

import structlog
from coincurve import PrivateKey

from taprail_common.eip3009 import TransferAuthorization
from taprail_gateway.custody import address_of
from taprail_gateway.settle import calls, replies
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.gas import SMALL_BATCH, USDC, GasTable
from taprail_gateway.settle.node import Call
from taprail_gateway.settle.signer import sign_authorization

_LARGE_BATCH: Final = 50

# EIP-2929 and EIP-2200: writing a slot that holds something costs 2,900, writing what it holds
# already 100. A trial of zero units writes both balances as they are.
_MOVING_UNITS_GAS: Final = 2 * (2_900 - 100)
# What is written for the first time costs 20,000 instead of 2,900.
_NEW_SLOT_GAS: Final = 20_000 - 2_900

_MARGIN_PERCENT: Final = 6
"""Over what was estimated: for EIP-150's 64th, which grows with the gas, and a token's moods."""

_MOST_TIMES_USDC: Final = 2
"""A token that costs more is none that was ever seen, or the node is wrong."""

_LEAST_GAS: Final = 35_000
"""Of any payment: its nonce is written for the first time (22,100), two balances change (10,000),
its signature is checked (3,000; EIP-2929, EIP-2200, yellow paper, appendix G). A node that says
less is wrong, and with its figures nothing would go through."""

_log = structlog.get_logger("settle.gas")


async def calibrated(chain: Chain) -> GasTable:
    """The table of this chain's token; USDC's, with a line in the log, when it cannot be had."""
    trials = [_trial(chain, nonce) for nonce in range(_LARGE_BATCH)]
    asked = [
        _estimate(chain.token.address, trials[0]),
        _estimate(chain.multicall, _together(chain, trials[:SMALL_BATCH])),
        _estimate(chain.multicall, _together(chain, trials)),
    ]
    try:
        direct, small, large = await chain.read(asked, replies.quantity)
        table = table_from(direct, small, large)
    except ChainError as exc:
        _log.warning("settle.gas_not_calibrated", reason=str(exc), instead="the figures of USDC")
        return USDC
    _log.debug("settle.gas_calibrated", direct=table.direct, payment=table.payment)
    return table


def table_from(direct_gas: int, small_gas: int, large_gas: int) -> GasTable:
    """The table for what a lone trial, SMALL_BATCH and _LARGE_BATCH of them use; or ChainError."""
    each = (large_gas - small_gas) // (_LARGE_BATCH - SMALL_BATCH)
    batch = small_gas - each * SMALL_BATCH
    payment = _with_margin(each + _MOVING_UNITS_GAS)
    table = GasTable(
        direct=_with_margin(direct_gas + _MOVING_UNITS_GAS),
        batch=_with_margin(batch),
        small_batch_payment=payment,
        payment=payment,
        new_payee=_with_margin(_NEW_SLOT_GAS),
    )
    _check(table)
    return table


def _check(table: GasTable) -> None:
    for name, least in (("direct", _LEAST_GAS), ("batch", 1), ("payment", _LEAST_GAS)):
        found, most = getattr(table, name), _MOST_TIMES_USDC * getattr(USDC, name)
        if not least <= found <= most:
            raise ChainError(
                f"{name} would take {found} gas, which is not between {least} and {most}"
            )


def _with_margin(gas: int) -> int:
    return -(-gas * (100 + _MARGIN_PERCENT) // 100)


def _trial(chain: Chain, nonce: int) -> bytes:
    """A transfer of nothing between two accounts that nobody ever used."""
    key = PrivateKey()
    authorization = TransferAuthorization(
        payer=address_of(key),
        payee=address_of(PrivateKey()),
        amount_units=0,
        valid_after_s=0,
        valid_before_s=2**48,
        nonce=nonce.to_bytes(32, "big"),
    )
    signature = sign_authorization(key, authorization, chain.token.domain_separator)
    return calls.transfer_with_authorization(authorization, signature)


def _together(chain: Chain, trials: list[bytes]) -> bytes:
    return calls.aggregate3([(chain.token.address, it) for it in trials], may_fail=False)


def _estimate(to: str, data: bytes) -> Call:
    return ("eth_estimateGas", [{"to": to, "data": "0x" + data.hex()}, "latest"])
