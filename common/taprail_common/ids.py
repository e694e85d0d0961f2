"""Identifiers: which form they have, and how a payment gets its own.

A payment's id is the EIP-3009 authorization nonce that moves its money. It is computed from the
terminal and the request alone, so both ends know it before the tap, and the chain itself refuses
to run it twice.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

from taprail_common.errors import InputError
from taprail_common.hashing import keccak256

# Names of terminals, merchants, cards, users and requests: they stand in URLs, logs and room
# names, so nothing that needs quoting and nothing that two alphabets spell alike.
IDENTIFIER_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_IDENTIFIER = re.compile(IDENTIFIER_PATTERN, re.ASCII)
_PAYMENT_ID = re.compile(r"0x[0-9a-f]{64}", re.ASCII)
_PAYMENT_DOMAIN: Final = b"taprail/payment/v1"


def new_id(prefix: str) -> str:
    """Mint an identifier like `req_5f0c…`: 128 random bits, so that no two ever meet."""
    return f"{prefix}_{secrets.token_hex(16)}"


def check_identifier(field: str, text: str) -> str:
    """Give the identifier back when it is well-formed; else raise InputError naming the field."""
    if _IDENTIFIER.fullmatch(text) is None:
        raise InputError(field, "must be 1 to 64 letters, digits, dots, dashes or underscores")
    return text


def payment_id(terminal_id: str, request_id: str) -> str:
    """The payment's id and authorization nonce: 0x and 64 hex digits.

    Identifiers hold no NUL byte, so the joined text cannot be split in another way.
    """
    joined = b"\0".join((_PAYMENT_DOMAIN, terminal_id.encode(), request_id.encode()))
    return "0x" + keccak256(joined).hex()


def is_payment_id(text: str) -> bool:
    """Whether the text has the form of a payment's id."""
    return _PAYMENT_ID.fullmatch(text) is not None


def mask(secretish: str) -> str:
    """What of a UID or another identifying value may be shown: its two ends."""
    return f"{secretish[:2]}…{secretish[-2:]}" if len(secretish) >= 8 else "…"
