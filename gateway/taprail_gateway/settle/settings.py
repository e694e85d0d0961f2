"""What an operator may set about settlement, with its bounds; read once, at start."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from taprail_common.config import Settings
from taprail_gateway.settle.calls import MULTICALL3_ADDRESS
from taprail_gateway.settle.fees import WEI_PER_GWEI

Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
NodeUrl = Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=500)]


class ChainSettings(Settings):
    """Which chain, which token, which nodes."""

    rpc_urls: tuple[NodeUrl, ...] = Field(min_length=1, max_length=8)
    """The first that answers is asked; transactions go to all of them."""
    chain_id: int = Field(gt=0, lt=2**53)
    token: Address
    multicall: Address = MULTICALL3_ADDRESS
    rpc_timeout_ms: int = Field(default=5_000, ge=100, le=60_000)
    """For one answer of a node, from the connection to its last byte."""


class SettlementSettings(Settings):
    """How payments are sent and confirmed."""

    payment_batch_size: int = Field(default=50, ge=1, le=500)
    """Payments claimed at once."""
    payment_batch_interval_ms: int = Field(default=4_000, ge=100, le=60_000)
    """The send loop looks at least this often; a new payment wakes it at once."""
    payments_per_transaction: int = Field(default=50, ge=1, le=100)
    confirmation_interval_ms: int = Field(default=2_000, ge=100, le=60_000)
    """The confirm loop looks at least this often, and more often around an expected block."""
    confirmations: int = Field(default=1, ge=1, le=1_000)
    """Depth that counts as final: 1 is the head block itself."""
    confirmation_timeout_s: int = Field(default=300, ge=10, le=86_400)
    """After it a payment is put on the list for manual review; a late receipt still counts."""
    authorization_validity_s: int = Field(default=600, ge=60, le=86_400)
    """How long after its signature a payer's authorization may be carried out."""
    max_fee_cap_gwei: float = Field(default=500.0, gt=0, le=1_000_000)
    priority_fee_gwei: float = Field(default=1.0, ge=0, le=10_000)

    @model_validator(mode="after")
    def _cap_holds_the_tip(self) -> Self:
        if self.priority_fee_gwei >= self.max_fee_cap_gwei:
            raise ValueError("priority_fee_gwei must be less than max_fee_cap_gwei")
        return self

    @property
    def max_fee_cap_wei(self) -> int:
        """The cap, in the unit of transactions."""
        return round(self.max_fee_cap_gwei * WEI_PER_GWEI)

    @property
    def priority_fee_wei(self) -> int:
        """The tip, in the unit of transactions."""
        return round(self.priority_fee_gwei * WEI_PER_GWEI)
