"""What a transaction may use: gas limits by table, never by an estimate of that transaction.

For `aggregate3` with allowFailure `eth_estimateGas` finds the limit at which the outer call
succeeds while the payments inside silently fail. Pure arithmetic; see `calibrate` for where the
figures of a token come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SMALL_BATCH: Final = 10
"""Up to so many payments share too little for the lower figure."""

# EIP-7825: no transaction may have a higher gas limit.
_MAX_TRANSACTION_GAS: Final = 2**24
# A limit that fills the block waits for an empty one; half a block leaves room to be fitted in.
_BLOCK_SHARE: Final = 2


@dataclass(frozen=True, slots=True)
class GasTable:
    """Limits of one token, in gas, each with its margin: what is not used is given back."""

    direct: int
    """One payment, straight to the token."""
    batch: int
    """A batch, beside its payments."""
    small_batch_payment: int
    """One payment of a batch of SMALL_BATCH or fewer."""
    payment: int
    """One payment of a larger batch."""
    new_payee: int
    """More for a payee's first tokens ever: a zero storage slot is written (EIP-2929, EIP-2200)."""

    def limit(self, payees: Sequence[str]) -> int:
        """Gas limit of a transaction with one payment per payee given; a lone one goes direct.

        Every distinct payee is counted as if these were its first tokens: too little loses the
        whole batch.
        """
        new_payees_gas = self.new_payee * len(set(payees))
        if len(payees) == 1:
            return self.direct + new_payees_gas
        each = self.payment if len(payees) > SMALL_BATCH else self.small_batch_payment
        return self.batch + each * len(payees) + new_payees_gas

    def payments_that_fit(self, wanted: int, block_gas_limit: int) -> int:
        """How many of the wanted payments one transaction may hold on a chain with such blocks."""
        room = min(block_gas_limit // _BLOCK_SHARE, _MAX_TRANSACTION_GAS) - self.batch
        return max(1, min(wanted, room // (self.small_batch_payment + self.new_payee)))


# The published code (FiatTokenV2_2 behind its proxy) costs more than any other EIP-3009 token that
# was tried: 92 k for one payment through aggregate3, 58 k each for ten payees, 52 k each for fifty;
# 86 k direct; 17.1 k more for a payee's first tokens.
USDC: Final = GasTable(
    direct=110_000,
    batch=50_000,
    small_batch_payment=62_000,
    payment=57_000,
    new_payee=17_100,
)
"""Measured with USDC: in force where a token's own figures cannot be had, and their upper bound."""
