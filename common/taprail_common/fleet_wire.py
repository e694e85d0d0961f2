"""What terminals and their gateway tell each other of keys that change, and of themselves.

A heartbeat says how a terminal is at this moment, a diagnosis what its self-test has found. Both
are the terminal's word, signed by its key; the gateway's answers are signed about them.
"""

from __future__ import annotations

from typing import Annotated, Final

from nacl.signing import SigningKey
from pydantic import Field

from taprail_common.api.base import Request, Told
from taprail_common.pairing import PublicKey
from taprail_common.signing import Domain, parse_public_key, public_key_text, sign, verify
from taprail_common.wire import Identifier, Timestamp, Word, from_ms

KEY_PATH: Final = "/api/terminals/key"
HEARTBEAT_PATH: Final = "/api/terminals/heartbeat"
DIAGNOSIS_PATH: Final = "/api/terminals/diagnosis"
DIAGNOSE_EVENT: Final = "terminal:diagnose"

MAX_CHECKS: Final = 24
MAX_DETAIL: Final = 100
"""Characters; so that all checks fit into one signed body, whatever they say."""

Count = Annotated[int, Field(ge=0, lt=2**31)]
Detail = Annotated[str, Field(max_length=MAX_DETAIL, pattern=r"^[ -~]*$")]
"""Plain ASCII, as the console answers."""


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


class Heartbeat(Request):
    """`POST /api/terminals/heartbeat`: how a terminal is now."""

    terminal_id: Identifier
    at: Timestamp
    version: Detail
    """Of its software."""
    phase: Detail
    reader_ok: bool
    reader: Detail
    """Its name and version, or what is wrong with it."""
    unresolved: Count
    """Requests that nobody has answered yet."""
    unsettled: Count
    """Approved ones that the chain has not confirmed yet."""
    uptime_s: Annotated[int, Field(ge=0, lt=2**40)]
    clock_offset_ms: Annotated[int, Field(gt=-(2**53), lt=2**53)] | None = None
    """The gateway's clock minus the terminal's; None before the first greeting."""
    config_version: Count
    """Of the configuration that was pushed to it and holds."""


class HeartbeatNoted(Told):
    """The gateway's signed answer, with the version of the configuration that it wants."""

    terminal_id: Word
    config_version: Count


class DiagnosisCheck(Request):
    """One part, looked at."""

    name: Detail
    ok: bool
    detail: Detail
    what_to_do: Detail
    ms: Count


class DiagnosisReport(Request):
    """`POST /api/terminals/diagnosis`: what a terminal has found when it was asked."""

    terminal_id: Identifier
    diagnosis_id: Identifier
    at: Timestamp
    version: Detail
    checks: Annotated[tuple[DiagnosisCheck, ...], Field(max_length=MAX_CHECKS, strict=False)]


class DiagnosisNoted(Told):
    """The gateway's signed answer: it has the report."""

    terminal_id: Word
    diagnosis_id: Word


class Diagnose(Told):
    """A command: look at all parts, and tell what you have found by then."""

    terminal_id: Identifier
    diagnosis_id: Identifier
    deadline: Timestamp


def _claim(terminal_id: str, public_key: str) -> bytes:
    return f"{terminal_id}\n{public_key}".encode()
