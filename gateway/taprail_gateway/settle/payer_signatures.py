"""Who signs a payment: the key of its account, which is in custody, or the card, which has done so.

What a card has signed goes out as it is, in the trial as on the chain: it cannot be signed anew,
nor for longer. Pure, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from coincurve import PrivateKey

from taprail_common.eip3009 import TransferAuthorization
from taprail_gateway.ledger.card_signatures import StoredSignature
from taprail_gateway.ledger.queries import PendingPayment
from taprail_gateway.settle import calls
from taprail_gateway.settle.signer import Signature, sign_authorization

ENDED: Final = "what the card has signed expired"


class SignedCall(NamedTuple):
    """A payment's call of the token, and until when it can have an effect."""

    data: bytes
    valid_before_s: int


@dataclass(frozen=True, slots=True)
class PayerSignatures:
    """The keys of payers and the signatures that came with payments, for one claim of a lane."""

    separator: bytes
    keys: Mapping[str, PrivateKey]
    """By the payer's address."""
    came_signed: Mapping[str, StoredSignature]
    """By the payment's id."""

    def call(self, payment: PendingPayment, until_s: int) -> SignedCall:
        """The call that carries the payment out; signed here, it is valid until then."""
        stored = self.came_signed.get(payment.id)
        valid_before_s = until_s if stored is None else stored.valid_before_s
        authorization = TransferAuthorization(
            payer=payment.payer,
            payee=payment.payee,
            amount_units=payment.amount_units,
            valid_after_s=0,
            valid_before_s=valid_before_s,
            nonce=bytes.fromhex(payment.id.removeprefix("0x")),
        )
        if stored is None:
            key = self.keys[payment.payer]
            signature = sign_authorization(key, authorization, self.separator)
        else:
            signature = Signature.from_bytes(stored.signature)
        data = calls.transfer_with_authorization(authorization, signature)
        return SignedCall(data, valid_before_s)

    def has_ended(self, payment: PendingPayment, head_time_s: int) -> bool:
        """Whether a card's signature is worth nothing in any block after this one: its end is a
        strict bound, and each block is later than the last."""
        stored = self.came_signed.get(payment.id)
        return stored is not None and stored.valid_before_s <= head_time_s + 1

    def own_ends_s(self, payment_ids: tuple[str, ...]) -> dict[str, int]:
        """When the signatures end of those of these payments that came signed."""
        return {
            each: self.came_signed[each].valid_before_s
            for each in payment_ids
            if each in self.came_signed
        }
