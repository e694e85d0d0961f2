"""Parcels made into transactions: the next nonces, one price, the lane's signature. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coincurve import PrivateKey

from taprail_gateway.ledger.transitions import Attempt
from taprail_gateway.settle.cargo import Parcel
from taprail_gateway.settle.fees import Fees
from taprail_gateway.settle.signer import SignedTransaction, sign_transaction


@dataclass(frozen=True, slots=True)
class Draft:
    """A signed transaction that is about to be stored."""

    nonce: int
    parcel: Parcel
    signed: SignedTransaction
    attempt: Attempt


def draft(
    lane_key: PrivateKey, chain_id: int, fees: Fees, parcels: Sequence[Parcel], first_nonce: int
) -> list[Draft]:
    """Sign a transaction for each parcel, in their order."""
    drafts = []
    for nonce, parcel in enumerate(parcels, start=first_nonce):
        signed = sign_transaction(
            lane_key,
            chain_id=chain_id,
            nonce=nonce,
            fees=fees,
            gas=parcel.gas,
            to=parcel.to,
            data=parcel.data,
        )
        attempt = Attempt(signed.tx_hash, signed.raw, parcel.gas, *fees)
        drafts.append(Draft(nonce, parcel, signed, attempt))
    return drafts
