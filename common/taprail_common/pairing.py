"""Pairing: how a terminal and a gateway that know a one-use code learn each other's keys.

A code is twelve characters that a person reads off one screen and types at another. The first four
name it and are sent; the other eight never are. Both sides stretch them with argon2id to a key, and
each puts a MAC by that key over everything that it says: the terminal over its public key, the
gateway over its own key and what it was asked. So whoever sits between can neither swap a key nor
leave out a certificate without knowing the code. They may carry a MAC away and try codes on it:
2^40 of them, each 64 MiB and four passes, within the minutes that the code lives and before the
terminal gives up waiting; tried at the gateway instead, it takes five. A code that was found out
later is of no use, since it was used.

Answers for the code, the MACs and the two messages. Where codes are kept, and how often one may be
tried, is the gateway's business (`taprail_gateway.pairing`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Annotated, Final, Self

from nacl.pwhash import argon2id
from pydantic import Field

from taprail_common.api.base import Answer, Request
from taprail_common.errors import InputError
from taprail_common.wire import Identifier, Word

PAIR_PATH: Final = "/api/terminals/pair"
PROOF_HEADER: Final = "TapRail-Proof"

_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: no letter that is taken for another one, or for a digit."""
_MISREAD: Final = str.maketrans("OIL", "011")
_GROUP: Final = 4
_CHARACTERS: Final = 12
_MAX_TYPED: Final = 40
_CONTEXT: Final = b"taprail/pairing/v1\n"
_OPERATIONS: Final = 4
_MEMORY_BYTES: Final = argon2id.MEMLIMIT_INTERACTIVE
"""64 MiB: a Pi Zero has them to spare, and takes some two seconds."""

CodeText = Annotated[str, Field(pattern=r"^[0-9A-Za-z -]{4,40}$")]
PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


@dataclass(frozen=True, slots=True)
class Code:
    """A one-use code; `name` may be seen by anybody."""

    name: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """A code that nobody can guess."""
        text = "".join(secrets.choice(_LETTERS) for _ in range(_CHARACTERS))
        return cls(text[:_GROUP], text[_GROUP:])

    @classmethod
    def parse(cls, typed: str) -> Self:
        """Read what was typed, in any case and grouping; raises InputError."""
        text = re.sub(r"[\s-]", "", typed[:_MAX_TYPED]).upper().translate(_MISREAD)
        if len(text) != _CHARACTERS or not set(text) <= set(_LETTERS):
            raise InputError(
                "code", f"must be {_CHARACTERS} letters and digits, like K7QF-4MX9-FT2W"
            )
        return cls(text[:_GROUP], text[_GROUP:])

    @property
    def text(self) -> str:
        """As people read it."""
        half = len(self.secret) // 2
        return f"{self.name}-{self.secret[:half]}-{self.secret[half:]}"

    def key(self) -> bytes:
        """What both sides know by it. Takes 64 MiB and a moment: not for an event loop."""
        salt = hashlib.sha256(_CONTEXT + self.name.encode()).digest()[: argon2id.SALTBYTES]
        key: bytes = argon2id.kdf(
            32, self.secret.encode(), salt, opslimit=_OPERATIONS, memlimit=_MEMORY_BYTES
        )
        return key


class PairRequest(Request):
    """`POST /api/terminals/pair`. `code` is the code's name, with a `proof` of the rest; or, over a
    line that is trusted, the whole code by itself."""

    code: CodeText
    public_key: PublicKey
    nonce: Nonce | None = None
    version: Word | None = None
    proof: Digest | None = None

    @property
    def said(self) -> bytes:
        """What the proof is over."""
        parts = (self.code, self.public_key, self.nonce or "", self.version or "")
        return "\n".join(parts).encode()


class PairAnswer(Answer):
    """Who the terminal is here, and what it knows its gateway by from now on."""

    terminal_id: Identifier
    merchant_id: Identifier
    currency: Annotated[str, Field(pattern=r"^[A-Z0-9]{2,12}$")]
    decimals: Annotated[int, Field(ge=0, le=6)]
    gateway_id: Word
    gateway_public_key: PublicKey
    fingerprint: Word
    """The terminal's own, which the operator's screen shows as well."""
    gateway_fingerprint: Word
    tls_pins: Annotated[tuple[Digest, ...], Field(max_length=2)] = ()
    """SHA-256 of the certificates that the gateway shows, now and next; none: it has none of its
    own, and its name is checked as a browser would."""


def request_proof(key: bytes, request: PairRequest) -> str:
    """The terminal's MAC over what it asks."""
    return hmac.digest(key, _CONTEXT + b"terminal\n" + request.said, "sha256").hex()


def answer_proof(key: bytes, request: PairRequest, body: bytes) -> str:
    """The gateway's MAC over the exact bytes of its answer, and what they answer."""
    asked = hashlib.sha256(request.said).digest()
    return hmac.digest(key, _CONTEXT + b"gateway\n" + asked + body, "sha256").hex()


def is_same(ours: str, theirs: str) -> bool:
    """Whether two MACs are the same, in constant time; whatever text the other one is."""
    return hmac.compare_digest(ours.encode(), theirs.encode(errors="replace"))
