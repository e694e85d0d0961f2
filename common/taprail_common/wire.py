"""The messages that cross between terminal, apps and gateway, validated when they are built.

JSON is camelCase outside and snake_case inside. Models are frozen; every text and every number has
a bound. What an older peer does not know it ignores in answers, and refuses in requests: a field
that would change a payment must never be dropped in silence.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)
from pydantic.alias_generators import to_camel

from taprail_common.clock import rfc3339
from taprail_common.eip3009 import TokenDomain
from taprail_common.errors import InputError
from taprail_common.ids import IDENTIFIER_PATTERN
from taprail_common.money import MAX_AMOUNT_UNITS

MAX_BODY_BYTES: Final = 8 * 1024
"""A payment request is under 700 bytes; the rest is room for longer proofs."""

PAYMENT_PATH: Final = "/api/payment/process-async"
TERMINAL_HEADER: Final = "TapRail-Terminal"
SIGNATURE_HEADER: Final = "TapRail-Signature"
TIMESTAMP_HEADER: Final = "TapRail-Timestamp"

TAP_VALIDITY_MS: Final = 15_000
"""An online tap is accepted for this long, so that nobody pays cash and is charged later."""

CLOCK_SKEW_MS: Final = 30_000
"""How far a terminal's clock may be from the gateway's before taps are refused."""

SIGNED_VALIDITY_S: Final = 3_600
"""How long what a card signs is valid, from its tap. It cannot be signed anew, so it must outlive
a node that is away for a while; until it ends, whoever has it can carry it out."""

SIGNED_LEAST_S: Final = SIGNED_VALIDITY_S // 2
"""How much of that must be left when it is accepted."""

MAX_CURSOR: Final = 400
"""Characters of a place in the order of events, which only the gateway understands."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(at: datetime) -> int:
    """A time as milliseconds since the Unix epoch, exactly."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def from_ms(at_ms: int) -> datetime:
    """Milliseconds since the Unix epoch as a time in UTC."""
    return _EPOCH + timedelta(milliseconds=at_ms)


_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(?:Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


def _as_rfc3339(value: object) -> object:
    # pydantic alone would also read seconds or milliseconds since 1970, by a guess at their size.
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise ValueError("must be a time like 2026-01-31T12:00:00Z")


Timestamp = Annotated[
    AwareDatetime,
    Field(strict=False),  # a text is how JSON writes a time
    BeforeValidator(_as_rfc3339),
    PlainSerializer(lambda at: rfc3339(to_ms(at)), return_type=str),
]
Identifier = Annotated[str, Field(pattern=IDENTIFIER_PATTERN)]
AmountUnits = Annotated[int, Field(strict=True, gt=0, le=MAX_AMOUNT_UNITS)]
Address = Annotated[str, Field(pattern=r"^0x[0-9a-f]{40}$")]
Currency = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,12}$")]
Word = Annotated[str, Field(max_length=80)]
"""A name or a code in an answer: no longer than a transaction's hash needs, and some room."""
MAX_SENTENCE: Final = 300
Sentence = Annotated[str, Field(max_length=MAX_SENTENCE)]


class _Message(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, validate_by_name=True
    )

    def to_json(self) -> bytes:
        """The message's bytes as they are signed and sent."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class SunProof(_Message):
    """What an NTAG 424 DNA wrote into its URL at this tap."""

    profile: Literal["sun"] = "sun"
    picc_data: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{32}$")]
    mac: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{16}$")]


class PlainSunProof(_Message):
    """The same of a card that mirrors serial number and counter in plain text: the MAC proves as
    much, and whoever reads the card learns which one it is."""

    profile: Literal["sun_plain"] = "sun_plain"
    uid: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{14}$")]
    read_counter: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{6}$")]
    mac: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{16}$")]


class UidProof(_Message):
    """Only a serial number: it identifies a card and proves nothing."""

    profile: Literal["uid"] = "uid"
    uid: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{8,20}$")]


class SignedProof(_Message):
    """A card's own EIP-3009 authorization of this very transfer, by the key of `payer`.

    Amount and nonce are the request's; `validAfter` is 0. The signature is r and s, the lower one.
    """

    profile: Literal["signed"] = "signed"
    payer: Address
    payee: Address
    valid_before: Annotated[int, Field(ge=0, lt=2**40)]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


CardProof = Annotated[
    SunProof | PlainSunProof | UidProof | SignedProof, Field(discriminator="profile")
]


class SigningTerms(BaseModel):
    """What a terminal must know for a card to sign: the token's domain, and who is paid."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True
    )

    chain_id: Annotated[int, Field(gt=0, lt=2**64)]
    token: Address
    token_name: Annotated[str, Field(max_length=1_000)]
    token_version: Annotated[str, Field(max_length=20)]
    payee: Address

    @property
    def domain_separator(self) -> bytes:
        """EIP-712's, of this token on this chain."""
        return TokenDomain(self.token_name, self.token_version, self.chain_id, self.token).separator


PIN_BLOCK_BYTES: Final = 256
"""What is sealed of a PIN (see `pin_block`), filled up to this length."""

SealedPin = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{406}==$")]
"""base64 of that and of the seal's own 48 bytes."""


class TerminalPayment(_Message):
    """`POST /api/payment/process-async` by a terminal; it signs the exact bytes."""

    request_id: Identifier
    terminal_id: Identifier
    merchant_id: Identifier
    amount: AmountUnits
    currency: Currency
    tapped_at: Timestamp
    accept_until: Timestamp
    proof: CardProof
    card_uuid: Identifier | None = None
    charge_id: Identifier | None = None
    """What the till has asked this terminal to take through the gateway, if it did."""
    counter: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    offline: bool = False
    """Taken without the gateway, by the version of its policy that is named beside it."""
    offline_version: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    pin: SealedPin | None = None

    @property
    def tapped_at_ms(self) -> int:
        return to_ms(self.tapped_at)

    @property
    def accept_until_ms(self) -> int:
        return to_ms(self.accept_until)


class AppPayment(_Message):
    """`POST /api/payment/process-async` by an app, for a card of its own user."""

    card_uuid: Identifier
    amount: AmountUnits
    merchant_id: Identifier
    terminal_id: Identifier
    currency: Currency | None = None
    request_id: Identifier | None = None


class Outcome(StrEnum):
    """What a gateway may say for good about a request. `unknown` is never said by anyone: it is
    what a terminal shows while nobody has said anything."""

    APPROVED = "approved"
    DECLINED = "declined"


class Verdict(BaseModel):
    """A gateway's signed, final answer to one request, as the terminal reads it.

    `declined` means *not charged, and never will be by this request*. An HTTP error without a
    verified verdict says nothing about the money.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True
    )

    verdict: Outcome
    request_id: Identifier
    terminal_id: Identifier
    amount: AmountUnits
    currency: Word
    gateway_time: Timestamp
    transaction_id: Word | None = None
    auth_code: Word | None = None
    reason: Sentence | None = None
    reason_code: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")] | None = None
    left_units: Annotated[int, Field(ge=0, le=MAX_AMOUNT_UNITS)] | None = None
    pin_tries_left: Annotated[int, Field(ge=0, le=9)] | None = None


class PaymentNotice(BaseModel):
    """What the gateway pushes to a terminal when a payment of its own changed state."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True
    )

    terminal_id: Identifier
    request_id: Identifier
    transaction_id: Word
    status: Word
    at: Timestamp
    amount: AmountUnits
    currency: Word
    tx_hash: Word | None = None
    reason: Sentence | None = None
    cursor: Annotated[str, Field(max_length=MAX_CURSOR)] | None = None
    """The place after it in the order of events, for who comes back to be told what came next;
    none in the answer to a question."""

    def to_json(self) -> bytes:
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class SignedEnvelope(BaseModel):
    """A signed body inside an event: the body as text, byte for byte what was signed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    body: Annotated[str, Field(max_length=MAX_BODY_BYTES)]
    signature: Annotated[str, Field(max_length=128)]


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], body: bytes | str) -> M:
    """Read a message; raises InputError that names the first wrong field and shows no values."""
    try:
        # By the names of the JSON alone: a field must not have two spellings in what is signed.
        return model.model_validate_json(body, by_alias=True, by_name=False)
    except ValidationError as exc:
        raise input_error(exc) from None


def input_error(exc: ValidationError) -> InputError:
    """The first problem of a validation as an InputError in the words of the sender's JSON."""
    problem = exc.errors(include_url=False, include_input=False)[0]
    unknown = problem["type"] == "extra_forbidden"  # named as it was sent
    field = ".".join(str(p) if unknown else _outside_name(p) for p in problem["loc"]) or "body"
    return InputError(field, _words(problem))


def _outside_name(part: int | str) -> str:
    return str(part) if isinstance(part, int) else to_camel(part)


def _words(problem: Any) -> str:
    if problem["type"] == "json_invalid":
        return "is not JSON"
    if problem["type"] == "extra_forbidden":
        return "is not a field of this message"
    return str(problem["msg"])[:120]
