"""What terminals and their gateway tell each other of keys that change, and of themselves."""

from __future__ import annotations

from typing import Annotated, Final

from nacl.signing import SigningKey
from pydantic import Field

from taprail_common.api.base import Request, Told
from taprail_common.pairing import PublicKey
from taprail_common.signing import Domain, parse_public_key, public_key_text, sign, verify
from taprail_common.wire import Identifier, Timestamp, Word, from_ms

KEY_PATH: Final = "/api/terminals/key"


class NextKey(Request):
    """`POST /api/terminals/key`: the key that a terminal goes over to. The body is signed by the
    key in use; `proof` is the next key's own, so that nobody claims a key that is another's."""

    terminal_id: Identifier
    public_key: PublicKey
    at: Timestamp
    proof: Annotated[str, Field(max_length=128)]

    @classmethod
    def of(cls, terminal_id: str, key: SigningKey, now_ms: int) -> NextKey:
        """Of the key that comes next."""
        text = public_key_text(key.verify_key)
        proof = sign(key, Domain.NEXT_KEY, _claim(terminal_id, text))
        return cls(terminal_id=terminal_id, public_key=text, at=from_ms(now_ms), proof=proof)

    def check(self) -> None:
        """Raise SignatureError unless whoever announces the key has it."""
        claim = _claim(self.terminal_id, self.public_key)
        verify(parse_public_key(self.public_key), Domain.NEXT_KEY, claim, self.proof)

    def to_json(self) -> bytes:
        """The message's bytes as they are signed and sent."""
        return self.model_dump_json(by_alias=True).encode()


class KeyNoted(Told):
    """The gateway's signed answer: from now on it takes both keys, until the next one was used."""

    terminal_id: str
    public_key: Word


def _claim(terminal_id: str, public_key: str) -> bytes:
    return f"{terminal_id}\n{public_key}".encode()
