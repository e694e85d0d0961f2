"""The proof: what the chain says the merchant received is what the ledger says, to the unit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from taprail_common.clock import SystemClock
from taprail_common.money import format_amount
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.invariants import check_invariants
from taprail_gateway.ledger.queries import totals_by_merchant
from taprail_hwsim.demo.tap_record import TapRecord
from taprail_hwsim.stack import Stack
from taprail_hwsim.world import MERCHANT_ACCOUNT, MERCHANT_ID

_DECIMALS = 6


@dataclass(frozen=True)
class Proof:
    """Both sides of the books, and what does not fit."""

    ledger_units: int
    chain_units: int
    approved: int
    transfers: int
    doubled: list[str]
    missing: list[str]
    problems: list[str]

    @property
    def holds(self) -> bool:
        """Whether everything agrees."""
        same = self.ledger_units == self.chain_units and self.approved == self.transfers
        return same and not (self.doubled or self.missing or self.problems)

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """For people: (what, by the ledger, by the chain, whether they agree)."""
        ledger, chain = (format_amount(u, _DECIMALS) for u in (self.ledger_units, self.chain_units))
        return [
            ("received by the merchant", ledger, chain, self.ledger_units == self.chain_units),
            (
                "approved taps and transfers",
                str(self.approved),
                str(self.transfers),
                self.approved == self.transfers and not self.missing,
            ),
            ("paid more than once", "0", str(len(self.doubled)), not self.doubled),
            ("rules of the ledger broken", str(len(self.problems)), "", not self.problems),
        ]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "holds": self.holds,
            "ledgerUnits": self.ledger_units,
            "chainUnits": self.chain_units,
            "approvedTaps": self.approved,
            "transfers": self.transfers,
            "doubled": self.doubled,
            "missing": self.missing,
            "problems": self.problems,
        }


def prove(stack: Stack, records: list[TapRecord]) -> Proof:
    """Compare ledger, chain and what the terminal showed. The chain is read without the gateway."""
    ledger = Ledger.open(
        GatewaySettings.load(stack.gateway_config).database_url, clock=SystemClock()
    )
    try:
        totals = ledger.read_now(totals_by_merchant)
        problems = ledger.read_now(check_invariants)
    finally:
        ledger.dispose()
    transfers = stack.chain.transfers(to=MERCHANT_ACCOUNT)
    times = Counter(transfer.nonce for transfer in transfers)
    approved = [record for record in records if record.is_settled]
    return Proof(
        ledger_units=totals[MERCHANT_ID],
        chain_units=sum(transfer.amount_units for transfer in transfers),
        approved=len(approved),
        transfers=len(transfers),
        doubled=[str(nonce) for nonce, count in times.items() if count > 1],
        missing=[r.request_id or "" for r in approved if r.payment_id not in times],
        problems=problems,
    )
