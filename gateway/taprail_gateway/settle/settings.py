"""What an operator may set about settlement, with its bounds; `live` says what is in force."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from taprail_common.config import Settings
from taprail_gateway.settle.calls import MULTICALL3_ADDRESS
from taprail_gateway.settle.fees import WEI_PER_GWEI

Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
Depth = Annotated[int, Field(ge=1, le=1_000)]
NodeUrl = Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=500)]

# Ethereum's epochs have 32 slots: one makes a block safe and two make it final when all goes well
# (https://ethereum.org/en/developers/docs/consensus-mechanisms/pos/#finality).
_USUAL_DEPTHS: Final = {"safe": 32, "finalized": 64}


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
    """How payments are sent and confirmed; operators may change all of it at run time."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    payment_batch_size: int = Field(default=50, ge=1, le=500)
    """Payments claimed at once."""
    payment_batch_interval_ms: int = Field(default=4_000, ge=100, le=60_000)
    """The send loop looks at least this often; a new payment wakes it at once."""
    payments_per_transaction: int = Field(default=50, ge=1, le=100)
    """Most payments in one transaction; fewer where the block's gas asks for it."""
    max_in_flight_payments: int = Field(default=10_000, ge=1, le=100_000)
    """Of one lane, sent and not settled; what comes beyond them waits."""
    confirmation_batch_size: int = Field(default=200, ge=1, le=1_000)
    """Transactions that one look of the confirm loop takes up."""
    confirmation_interval_ms: int = Field(default=2_000, ge=100, le=60_000)
    """The confirm loop looks at least this often, and more often around an expected block."""
    confirmations: Depth | Literal["safe", "finalized"] = 1
    """What counts as final: a depth (1 is the head block itself), or the node's own word for it."""
    confirmation_timeout_s: int = Field(default=300, ge=10, le=86_400)
    """After it a payment is put on the list for manual review; a late receipt still counts."""
    authorization_validity_s: int = Field(default=600, ge=60, le=86_400)
    """How long after its signature a payer's authorization may be carried out."""
    reset_stuck_after_s: int = Field(default=300, ge=10, le=86_400)
    """How long a payment has been `sent` before `queue reset-stuck` means it, unless told."""
    max_fee_cap_gwei: float = Field(default=500.0, gt=0, le=1_000_000)
    """No transaction offers more than this for a unit of gas."""
    priority_fee_gwei: float = Field(default=1.0, ge=0, le=10_000)
    """The tip for a unit of gas."""

    @model_validator(mode="after")
    def _cap_holds_the_tip(self) -> Self:
        if self.priority_fee_gwei >= self.max_fee_cap_gwei:
            raise ValueError(
                "priority_fee_gwei must be less than max_fee_cap_gwei:"
                f" {self.priority_fee_gwei:g} is not less than {self.max_fee_cap_gwei:g}"
            )
        return self

    @property
    def usual_depth(self) -> int:
        """The confirmations in blocks, for an estimate of how long they take."""
        if isinstance(self.confirmations, str):
            return _USUAL_DEPTHS[self.confirmations]
        return self.confirmations

    @property
    def max_fee_cap_wei(self) -> int:
        """The cap, in the unit of transactions."""
        return round(self.max_fee_cap_gwei * WEI_PER_GWEI)

    @property
    def priority_fee_wei(self) -> int:
        """The tip, in the unit of transactions."""
        return round(self.priority_fee_gwei * WEI_PER_GWEI)
