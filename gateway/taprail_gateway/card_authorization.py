"""What a signing card has authorized by its own key: checked once, then carried out as it is.

The signature covers payer, payee, amount, payment id and end, so nobody here can change any of it,
and a second one cannot be had. A signature does not say which of two keys made it; the payer says
which, so both are tried, and the one that is found is kept as `v`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from coincurve import PublicKey

from taprail_common.eip3009 import TransferAuthorization
from taprail_common.errors import InputError
from taprail_common.ids import payment_id
from taprail_common.secp256k1 import CardKey, CardSignature
from taprail_common.wire import SignedProof, TerminalPayment

_LOWEST_V: Final = 27  # Ethereum yellow paper, appendix F; tokens accept 27 or 28 only
_PARITIES: Final = (0, 1)
# Of four ids the upper two need an r above the field's size minus the order: one in 2^127.


@dataclass(frozen=True, slots=True)
class CardAuthorization:
    """A transfer that its payer's card has signed; `signature` is r, s and v in 65 bytes."""

    payer: str
    payee: str
    valid_before_s: int
    signature: bytes = field(repr=False)


def checked(payment: TerminalPayment, proof: SignedProof, separator: bytes) -> CardAuthorization:
    """The card's authorization of exactly this payment; InputError when the proof does not hold."""
    transfer = TransferAuthorization(
        payer=proof.payer,
        payee=proof.payee,
        amount_units=payment.amount,
        valid_after_s=0,
        valid_before_s=proof.valid_before,
        nonce=bytes.fromhex(payment_id(payment.terminal_id, payment.request_id)[2:]),
    )
    signed = signature_of(transfer, bytes.fromhex(proof.signature), separator)
    if signed is None:
        raise InputError("proof.signature", "is not the payer's under this payment")
    return CardAuthorization(proof.payer, proof.payee, proof.valid_before, signed)


def signature_of(transfer: TransferAuthorization, compact: bytes, separator: bytes) -> bytes | None:
    """A payer's signature (r and s) as a token takes it, with its `v`; None when it is not theirs
    under this transfer, InputError when it is none at all."""
    signature = CardSignature.from_compact(compact).compact()
    digest = transfer.digest(separator)
    for parity in _PARITIES:
        if _signer(digest, signature + bytes([parity])) == transfer.payer:
            return signature + bytes([_LOWEST_V + parity])
    return None


def _signer(digest: bytes, recoverable: bytes) -> str | None:
    try:
        key = PublicKey.from_signature_and_message(recoverable, digest, hasher=None)
    except ValueError:
        return None  # no point of the curve has this r
    return CardKey(key.format(compressed=False)).address
