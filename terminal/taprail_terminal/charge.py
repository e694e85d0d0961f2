"""What a signing card is asked to sign: all of a transfer but its payer, known before the tap.

Token, payee and time are the gateway's, from a greeting that it has signed; the nonce follows from
this terminal and the request. Terms that are too old are none: without the gateway, no signing card
is taken. The clock of this machine plays no part, only how long ago the greeting came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from taprail_common.clock import Clock
from taprail_common.eip3009 import TransferAuthorization
from taprail_common.ids import payment_id
from taprail_common.offline_wire import OfflinePolicy
from taprail_common.wire import SIGNED_VALIDITY_S
from taprail_terminal.gateway_link import Greeting

TERMS_LIFE_S: Final = 600.0
"""A greeting comes every 20 s; after ten minutes without one, payee and time are not to be trusted
any more. Far less than the validity that the gateway wants to be left of what is signed."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One request's transfer, without its payer."""

    request_id: str
    domain_separator: bytes = field(repr=False)
    payee: str
    amount_units: int
    valid_before_s: int
    nonce: bytes = field(repr=False)
    offline: OfflinePolicy | None = None
    """By whose leave it is taken without the gateway."""

    def by(self, payer: str) -> TransferAuthorization:
        """The transfer that this payer would authorize."""
        return TransferAuthorization(
            payer=payer,
            payee=self.payee,
            amount_units=self.amount_units,
            valid_after_s=0,
            valid_before_s=self.valid_before_s,
            nonce=self.nonce,
        )


@dataclass(frozen=True, slots=True)
class ChargeMaker:
    """Makes charges of one terminal. `greeting` gives the last one; safe to call in any thread."""

    terminal_id: str
    greeting: Callable[[], Greeting | None]
    clock: Clock

    def make(self, request_id: str, amount_units: int) -> Charge | None:
        """The charge for a request; None while the gateway's terms are not at hand."""
        greeting = self.greeting()
        terms = None if greeting is None else greeting.hello.signing
        if greeting is None or terms is None:
            return None
        age_s = self.clock.monotonic_s() - greeting.received_s
        if age_s > TERMS_LIFE_S:
            return None
        gateway_now_s = greeting.hello.gateway_time // 1000 + int(age_s)
        nonce = payment_id(self.terminal_id, request_id)
        return Charge(
            request_id,
            terms.domain_separator,
            terms.payee,
            amount_units,
            gateway_now_s + SIGNED_VALIDITY_S,
            bytes.fromhex(nonce.removeprefix("0x")),
        )
