"""`[rewards]`: which points contract a merchant rewards payers with, and at what rate."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from taprail_common.config import Settings
from taprail_gateway.settle.settings import Address

MAX_RATE: Final = 1_000
"""Payments are below 2**53 units, so their rewards stay within the ledger's 64-bit integers."""

# Digits only, so that the rate is exact: no float may come in between.
Rate = Annotated[str, Field(pattern=r"^[0-9]{1,9}([/.][0-9]{1,9})?$")]


class RewardSettings(Settings):
    """Off unless a contract is named."""

    contract: Address | None = None
    """A deployed RewardPoints, on which the wallet of each rewards lane is a minter."""
    rate: Rate = "0"
    """Units of points per unit of a payment, exactly: "1/100", "0.01", "2". What is left of a
    unit is not given."""

    @model_validator(mode="after")
    def _is_a_rate(self) -> Self:
        if self.contract is None:
            return self
        try:
            rate = self.fraction
        except ZeroDivisionError:
            raise ValueError("rewards.rate divides by zero") from None
        if not 0 < rate <= MAX_RATE:
            raise ValueError(f"rewards.rate must be over 0 and at most {MAX_RATE}")
        return self

    @property
    def fraction(self) -> Fraction:
        """The rate as it is meant."""
        return Fraction(self.rate)
