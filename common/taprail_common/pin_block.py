"""A PIN on its way from a keypad to the gateway: sealed to the gateway's key, for one tap.

Answers for what is inside the seal and how it is opened. The key is the X25519 form of the
gateway's Ed25519 key, which every terminal knows already, so there is nothing to hand out and
nothing to forge. Request and card are inside, so that a block that was caught opens for nothing
else; it has one length, so that it does not tell how long a PIN is. Whether the PIN is right is the
gateway's matter. Sources: libsodium, "Sealed boxes" and "Ed25519 to Curve25519".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import Final

from nacl.exceptions import CryptoError
from nacl.public import SealedBox
from nacl.signing import SigningKey, VerifyKey

from taprail_common.errors import InputError
from taprail_common.wire import PIN_BLOCK_BYTES, CardProof

PIN_DIGITS: Final = (4, 12)
"""ISO 9564-1 section 8.1: the fewest and the most digits."""

_PIN = re.compile(rf"[0-9]{{{PIN_DIGITS[0]},{PIN_DIGITS[1]}}}", re.ASCII)


def check_pin(pin: str) -> str:
    """Give a PIN back when it is one; else raise InputError, which does not show it."""
    if _PIN.fullmatch(pin) is None:
        raise InputError("pin", f"must be {PIN_DIGITS[0]} to {PIN_DIGITS[1]} digits")
    return pin


def seal_pin(key: VerifyKey, request_id: str, proof: CardProof, pin: str) -> str:
    """Seal a PIN for one request and one tap; base64."""
    inside = {"request": request_id, "card": _card(proof), "pin": check_pin(pin)}
    plain = json.dumps(inside).encode().ljust(PIN_BLOCK_BYTES)
    if len(plain) != PIN_BLOCK_BYTES:
        raise InputError("requestId", "is too long for a PIN's block")
    sealed: bytes = SealedBox(key.to_curve25519_public_key()).encrypt(plain)
    return base64.b64encode(sealed).decode("ascii")


def open_pin(key: SigningKey, request_id: str, proof: CardProof, sealed: str) -> str:
    """The PIN of this request and this tap; raises InputError for any other block."""
    try:
        raw = base64.b64decode(sealed, validate=True)
        plain = SealedBox(key.to_curve25519_private_key()).decrypt(raw)
        inside = json.loads(plain)
    except (binascii.Error, CryptoError, ValueError):
        raise InputError("pin", "is not sealed to this gateway") from None
    wanted = {"request": request_id, "card": _card(proof)}
    if not isinstance(inside, dict) or {**inside, "pin": None} != {**wanted, "pin": None}:
        raise InputError("pin", "was sealed for another request or another tap")
    return check_pin(str(inside.get("pin")))


def _card(proof: CardProof) -> str:
    return hashlib.sha256(proof.to_json()).hexdigest()
