"""Who this terminal is: its Ed25519 device key, and everything that it signs.

Answers for the form of signed requests, queries and connects. The private key never leaves this
module.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

from taprail_common.errors import OperatorError
from taprail_common.signing import (
    Domain,
    create_key_file,
    fingerprint,
    load_key_file,
    public_key_text,
    sign,
)
from taprail_common.wire import SIGNATURE_HEADER, TERMINAL_HEADER, TIMESTAMP_HEADER

_WHAT: Final = "device key"
_NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class SignedQuery:
    """Headers of a signed GET, and the bytes that the answer's signature must be about."""

    headers: dict[str, str]
    signed: bytes


class Identity:
    """A terminal's name and key."""

    def __init__(self, terminal_id: str, key: SigningKey) -> None:
        self.terminal_id = terminal_id
        self._key = key

    def __repr__(self) -> str:
        return f"Identity({self.terminal_id}, {self.fingerprint})"

    @classmethod
    def load(cls, terminal_id: str, key_file: Path) -> Identity:
        """Read the key; raises OperatorError that says what to do when there is none."""
        if not key_file.exists():
            raise OperatorError(
                f"device key {key_file} is missing", fix="run `taprail terminal init --config FILE`"
            )
        return cls(terminal_id, load_key_file(key_file, _WHAT))

    @classmethod
    def create(cls, terminal_id: str, key_file: Path) -> Identity:
        """Make a new key; raises OperatorError when there is one already."""
        try:
            return cls(terminal_id, create_key_file(key_file))
        except FileExistsError:
            raise OperatorError(
                f"device key {key_file} exists already", fix="keep it, or move it away first"
            ) from None
        except OSError as exc:
            raise OperatorError(f"device key {key_file} cannot be made ({exc.strerror})") from exc

    @property
    def public_key(self) -> str:
        """64 hex digits, as the gateway's registry takes them."""
        return public_key_text(self._key.verify_key)

    @property
    def fingerprint(self) -> str:
        """What two people compare."""
        return fingerprint(self._key.verify_key)

    def use(self, key: SigningKey) -> None:
        """Sign with another key from now on."""
        self._key = key

    def sign_request(self, body: bytes) -> str:
        """The signature of a payment request's exact bytes."""
        return sign(self._key, Domain.PAYMENT_REQUEST, body)

    def sign_body(self, domain: Domain, body: bytes) -> str:
        """The signature of other bytes of this terminal's, for one purpose."""
        return sign(self._key, domain, body)

    def request_headers(self, signature: str) -> dict[str, str]:
        """What goes with a request's bytes."""
        return {
            TERMINAL_HEADER: self.terminal_id,
            SIGNATURE_HEADER: signature,
            "Content-Type": "application/json",
        }

    def query(self, method: str, path: str, now_ms: int) -> SignedQuery:
        """Sign a question to the gateway."""
        signed = f"{method} {path}\n{self.terminal_id}\n{now_ms}".encode()
        headers = {
            TERMINAL_HEADER: self.terminal_id,
            TIMESTAMP_HEADER: str(now_ms),
            SIGNATURE_HEADER: sign(self._key, Domain.QUERY, signed),
        }
        return SignedQuery(headers, signed)

    def connect(self, gateway: str, now_ms: int) -> dict[str, object]:
        """Fresh proof for one connection to the gateway of this id."""
        nonce = secrets.token_hex(_NONCE_BYTES)
        signed = f"{gateway}\n{self.terminal_id}\n{now_ms}\n{nonce}".encode()
        return {
            "terminalId": self.terminal_id,
            "timestamp": now_ms,
            "nonce": nonce,
            "signature": sign(self._key, Domain.CONNECT, signed),
        }
