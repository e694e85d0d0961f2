"""How a technician proves who they are: a signature over the command and a nonce of the terminal's.

Answers for the exact bytes, which both ends make alike. A proof is good for one command, on one
terminal, once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nacl.signing import SigningKey, VerifyKey

from taprail_common.signing import Domain, public_key_text, sign, verify


@dataclass(frozen=True, slots=True)
class Proof:
    """What comes with a command that changes something."""

    public_key: str
    nonce: str
    signature: str

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Proof | None:
        """The proof in a request's body; None where there is none."""
        found = [body.get(name) for name in ("technician", "nonce", "signature")]
        if not all(isinstance(value, str) and len(value) <= 128 for value in found):
            return None
        return cls(*(str(value) for value in found))

    def to_json(self) -> dict[str, str]:
        """As it travels."""
        return {
            "technician": self.public_key,
            "nonce": self.nonce,
            "signature": self.signature,
        }

    def check(self, key: VerifyKey, terminal_id: str, words: Sequence[str]) -> None:
        """Raise SignatureError unless the key signed this command for this terminal."""
        said, about = _said(words), _about(terminal_id, self.nonce)
        verify(key, Domain.TECHNICIAN, said, self.signature, about=about)


def prove(key: SigningKey, terminal_id: str, nonce: str, words: Sequence[str]) -> Proof:
    """Sign a command for one terminal and one nonce of it."""
    made = sign(key, Domain.TECHNICIAN, _said(words), about=_about(terminal_id, nonce))
    return Proof(public_key_text(key.verify_key), nonce, made)


def _said(words: Sequence[str]) -> bytes:
    return json.dumps(list(words)).encode("ascii")


def _about(terminal_id: str, nonce: str) -> bytes:
    return f"{terminal_id}\n{nonce}".encode()
