"""What operators and merchants send and are answered, beside payments and queues."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, WithJsonSchema, create_model

from taprail_common.ids import IDENTIFIER_PATTERN
from taprail_common.money import MAX_AMOUNT_UNITS
from taprail_common.payment_state import PaymentState
from taprail_common.wire import AmountUnits, Identifier, Timestamp
from taprail_gateway.api.messages import Answer, Part, Request, Time
from taprail_gateway.ledger.actions import MAX_REASON
from taprail_gateway.ledger.alerts import MAX_ID
from taprail_gateway.ledger.alerts import MAX_LISTED as MAX_ALERTS
from taprail_gateway.ledger.payment_list import MAX_PAGE
from taprail_gateway.settle.settings import SettlementSettings

_PAGE: Final = 50

Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON, description="For the record.")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]
Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
AfterId = Annotated[
    str, Field(pattern=IDENTIFIER_PATTERN, description="The last id of the page before.")
]


# --- payments -------------------------------------------------------------------------------------


class PaymentQuery(Request):
    """Which payments."""

    status: PaymentState | None = None
    card: Identifier | None = None
    merchant: Identifier | None = None
    from_time: Annotated[Timestamp | None, Field(alias="from")] = None
    to_time: Annotated[Timestamp | None, Field(alias="to")] = None
    limit: Limit = _PAGE
    cursor: Annotated[
        str | None,
        Field(pattern=r"^[0-9]{1,15}-0x[0-9a-f]{64}$", description="`nextCursor` of a page."),
    ] = None
    format: Annotated[Literal["json", "csv"], Field(description="`csv` is all pages.")] = "json"


class ListedPayment(Part):
    """A payment in a list."""

    id: str
    status: PaymentState
    amount: int
    currency: str
    card_uuid: str
    merchant_id: str
    terminal_id: str
    request_id: str
    auth_code: str
    created_at: Time
    completed_at: Time | None
    tx_hash: str | None
    explorer_url: str | None
    failure_reason: str | None


class PaymentList(Answer):
    """A page, the newest first."""

    payments: list[ListedPayment]
    next_cursor: Annotated[str | None, Field(description="null: this was the last page.")]


class Why(Request):
    """Why something is done."""

    reason: Reason | None = None


class Retried(Answer):
    """It goes round again."""

    transaction_id: str
    status: PaymentState


class StuckQuery(Why):
    """What counts as stuck."""

    older_than_seconds: Annotated[
        int | None,
        Field(ge=0, le=86_400, description="`sent` for so long; by default as it is set."),
    ] = None


class Reset(Answer):
    """What will be broadcast again, and then bumped."""

    payments: int
    transactions: int


# --- alerts and settings --------------------------------------------------------------------------


class AlertQuery(Request):
    """Which alerts."""

    review: Annotated[bool, Field(description="Only what is flagged for manual review.")] = False
    limit: Annotated[int, Field(ge=1, le=MAX_ALERTS)] = 100


class AlertPart(Part):
    """Something that a person should look at."""

    id: int
    kind: str
    subject: str
    level: Literal["info", "warning", "error"]
    text: str
    needs_review: bool
    raised_at: Annotated[Time, Field(validation_alias="raised_at_ms")]


class AlertList(Answer):
    """The open ones, the oldest first."""

    alerts: list[AlertPart]


class Reviewed(Why):
    """An alert that somebody has looked into."""

    id: Annotated[int, Field(ge=1, le=MAX_ID)]


class Cleared(Answer):
    """It is cleared; it may be raised again while its cause holds."""

    id: int
    cleared_by: str


def _settings() -> dict[str, Any]:
    """Each may be given or null; whether it holds is judged with all that is set (`tuning`)."""
    schemas = SettlementSettings.model_json_schema()["properties"]
    return {
        name: (
            Annotated[Any, WithJsonSchema({"anyOf": [_shown(schema), {"type": "null"}]})],
            Field(default=None, alias=name),
        )
        for name, schema in schemas.items()
    }


def _shown(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in {"default", "title"}}


SettingsChange = create_model(
    "SettingsChange",
    __base__=Why,
    __doc__="Settings by their names; null gives one back to the configuration file.",
    **_settings(),
)


class SettingPart(Part):
    """A setting, where its value is from, and what it may be."""

    name: str
    value: Any
    source: Annotated[Literal["operator", "file", "default"], Field(validation_alias="from")]
    default: Any
    may_be: Annotated[str, Field(validation_alias="mayBe")]
    about: str
    passed_over: Annotated[str | None, Field(validation_alias="passedOver")] = None


class SettingsAnswer(Answer):
    """What is in force."""

    settings: dict[str, Any]
    details: list[SettingPart]


# --- users, merchants, terminals, cards -----------------------------------------------------------


class PageQuery(Request):
    """A page of a list that is in the order of its ids."""

    after: AfterId | None = None
    limit: Limit = _PAGE


class NewUser(Request):
    """A user to be added."""

    id: Identifier
    name: Name | None = None
    role: Literal["customer", "merchant", "operator"] = "customer"


class UserChange(Why):
    """Nobody acts by a frozen user's tokens, and none of their cards pays."""

    status: Literal["active", "frozen"]


class UserPart(Part):
    """A user."""

    id: str
    name: str
    role: Literal["customer", "merchant", "operator"]
    status: Literal["active", "frozen"]
    created_at: Annotated[Time, Field(validation_alias="created_at_ms")]


class NewMerchant(Request):
    """A merchant to be added; its user may see its sales."""

    id: Identifier
    account: Address
    name: Name | None = None
    user_id: Identifier | None = None


class MerchantChange(Why):
    """A closed merchant is paid nothing new."""

    status: Literal["active", "closed"]


class MerchantPart(Part):
    """A merchant."""

    id: str
    name: str
    account: str
    status: Literal["active", "closed"]
    user_id: str | None
    created_at: Annotated[Time, Field(validation_alias="created_at_ms")]


class NewTerminal(Request):
    """A terminal to be added, by its Ed25519 key."""

    id: Identifier
    merchant_id: Identifier
    public_key: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
    name: Name | None = None


class TerminalChange(Why):
    """A revoked terminal stays so."""

    status: Literal["revoked"]


class TerminalPart(Part):
    """A terminal."""

    id: str
    merchant_id: str
    name: str
    public_key: str
    status: Literal["active", "revoked"]
    created_at: Annotated[Time, Field(validation_alias="created_at_ms")]


class NewCard(Request):
    """A card to be issued. One that signs has an address, any other a serial number."""

    user_id: Identifier
    uid: Annotated[str | None, Field(pattern=r"^(?:[0-9A-Fa-f]{2}){4,10}$")] = None
    address: Address | None = None
    profile: Literal["sun", "uid", "signed"] = "sun"
    name: Name | None = None
    single_limit: AmountUnits | None = None
    daily_limit: AmountUnits | None = None
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    card_uuid: Identifier | None = None


class CardChange(Why):
    """What is given is changed. Customers may freeze their own cards, and nothing else."""

    status: Literal["active", "frozen"] | None = None
    single_limit: Annotated[int | None, Field(gt=0, le=MAX_AMOUNT_UNITS)] = None
    daily_limit: Annotated[int | None, Field(gt=0, le=MAX_AMOUNT_UNITS)] = None


class CardPart(Part):
    """A card, and the account that it spends from."""

    uuid: str
    name: str
    profile: Literal["sun", "uid", "signed"]
    user_id: str
    account: str
    status: Literal["active", "frozen", "expired"]
    single_limit: Annotated[int, Field(validation_alias="single_limit_units")]
    daily_limit: Annotated[int, Field(validation_alias="daily_limit_units")]
    time_zone: str
    balance: Annotated[int, Field(validation_alias="balance_units", description="On the chain.")]
    held: Annotated[int, Field(validation_alias="held_units", description="Of it, for payments.")]
    created_at: Annotated[Time, Field(validation_alias="created_at_ms")]


class _Created:
    http_status: ClassVar[int] = 201


class UserAnswer(Answer):
    """A user."""

    user: UserPart


class UserAdded(_Created, UserAnswer):
    """A user that is new."""


class UserList(Answer):
    """A page of users."""

    users: list[UserPart]


class MerchantAnswer(Answer):
    """A merchant."""

    merchant: MerchantPart


class MerchantAdded(_Created, MerchantAnswer):
    """A merchant that is new."""


class MerchantList(Answer):
    """A page of merchants."""

    merchants: list[MerchantPart]


class TerminalAnswer(Answer):
    """A terminal."""

    terminal: TerminalPart


class TerminalAdded(_Created, TerminalAnswer):
    """A terminal that is new."""


class TerminalList(Answer):
    """A page of terminals."""

    terminals: list[TerminalPart]


class CardAnswer(Answer):
    """A card."""

    card: CardPart


class CardIssued(_Created, CardAnswer):
    """A card that is new; its account is to be funded."""


class CardList(Answer):
    """A page of cards."""

    cards: list[CardPart]
