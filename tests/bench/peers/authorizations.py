"""The transfers that every peer is given: EIP-3009 authorizations, signed beforehand."""

from __future__ import annotations

from typing import Any, Final

from taprail_hwsim.dev_chain import DevChain
from tests.support import eip3009

PAYERS: Final = 50
AMOUNT_UNITS: Final = 10
BALANCE_UNITS: Final = 1_000_000
MERCHANT: Final = "0xaAaAaAaaAaAaAaaAaAAAAAAAAaaaAaAaAaaAaaAa"
_VALID_FOR_S: Final = 3600

_ARGUMENTS: Final = (
    *(("address", name) for name in ("from", "to")),
    *(("uint256", name) for name in ("value", "validAfter", "validBefore")),
    *(("bytes32", "nonce"), ("uint8", "v"), ("bytes32", "r"), ("bytes32", "s")),
)
ABI: Final = [
    {
        "name": "transferWithAuthorization",
        "type": "function",
        "stateMutability": "nonpayable",
        "inputs": [{"name": name, "type": kind} for kind, name in _ARGUMENTS],
        "outputs": [],
    }
]
"""The call in the JSON form that all of them read."""


def fill_purses(chain: DevChain) -> None:
    """Give the payers what they will spend, and the merchant an account that is not new."""
    chain.mint_all({eip3009.account(n).address: BALANCE_UNITS for n in range(PAYERS)})
    chain.mint(MERCHANT, 1)


def sign_payments(chain: DevChain, count: int) -> list[dict[str, Any]]:
    """So many payments to one merchant, by payers in turn, each with its signature."""
    domain = eip3009.domain(chain)
    payers = [eip3009.account(number) for number in range(PAYERS)]
    valid_before_s = chain.block_time_s() + _VALID_FOR_S
    signed = []
    for number in range(count):
        payer = payers[number % PAYERS]
        unsigned = eip3009.Authorization(
            sender=payer.address,
            recipient=MERCHANT,
            amount_units=AMOUNT_UNITS,
            nonce=eip3009.nonce(number),
            valid_after_s=0,
            valid_before_s=valid_before_s,
        )
        signed.append(_as_json(unsigned.signed_in(domain, payer)))
    return signed


def _as_json(signed: eip3009.Authorization) -> dict[str, Any]:
    """Amounts as decimal text, as x402 has them; the signature in parts and in one piece."""
    r, s = signed.r.to_bytes(32).hex(), signed.s.to_bytes(32).hex()
    return {
        "authorization": {
            "from": signed.sender,
            "to": signed.recipient,
            "value": str(signed.amount_units),
            "validAfter": str(signed.valid_after_s),
            "validBefore": str(signed.valid_before_s),
            "nonce": signed.nonce,
        },
        "v": signed.v,
        "r": "0x" + r,
        "s": "0x" + s,
        "signature": f"0x{r}{s}{signed.v:02x}",
    }
