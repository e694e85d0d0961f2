"""What operators and merchants send and are answered, beside payments and queues."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AliasChoices, Field

from taprail_common.api.base import AfterId, Answer, Part, Request, Time, Why
from taprail_common.api.fleet import TerminalHealth
from taprail_common.api.payments import Limit
from taprail_common.money import MAX_AMOUNT_UNITS
from taprail_common.wire import AmountUnits, Identifier, Timestamp

MAX_ALERTS: Final = 1_000
MAX_ALERT_ID: Final = 2**63 - 1
"""What both databases can hold as a row's number."""

_PAGE: Final = 50

Created = Annotated[Time, Field(validation_alias=AliasChoices("createdAt", "created_at_ms"))]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]


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
    raised_at: Annotated[Time, Field(validation_alias=AliasChoices("raisedAt", "raised_at_ms"))]


class AlertList(Answer):
    """The open ones, the oldest first."""

    alerts: list[AlertPart]


class Reviewed(Why):
    """An alert that somebody has looked into."""

    id: Annotated[int, Field(ge=1, le=MAX_ALERT_ID)]


class Cleared(Answer):
    """It is cleared; it may be raised again while its cause holds."""

    id: int
    cleared_by: str


class SettingPart(Part):
    """A setting, where its value is from, and what it may be."""

    name: str
    value: Any
    source: Annotated[
        Literal["operator", "file", "default"],
        Field(validation_alias=AliasChoices("source", "from")),
    ]
    default: Any
    may_be: str
    about: str
    passed_over: str | None = None


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
    created_at: Created


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
    created_at: Created


class NewTerminal(Request):
    """A terminal to be added, by its Ed25519 key."""

    id: Identifier
    merchant_id: Identifier
    public_key: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
    name: Name | None = None


class TerminalChange(Why):
    """Nothing is taken of a frozen terminal until an operator thaws it; a revoked one stays so."""

    status: Literal["active", "frozen", "revoked"]


class TerminalPart(Part):
    """A terminal."""

    id: str
    merchant_id: str
    name: str
    public_key: str
    status: Literal["active", "frozen", "revoked"]
    created_at: Created
    health: TerminalHealth | None = None
    """Left out where a terminal is only just added or changed."""


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
    single_limit: Annotated[
        int, Field(validation_alias=AliasChoices("singleLimit", "single_limit_units"))
    ]
    daily_limit: Annotated[
        int, Field(validation_alias=AliasChoices("dailyLimit", "daily_limit_units"))
    ]
    time_zone: str
    balance: Annotated[
        int,
        Field(
            validation_alias=AliasChoices("balance", "balance_units"), description="On the chain."
        ),
    ]
    held: Annotated[
        int,
        Field(
            validation_alias=AliasChoices("held", "held_units"), description="Of it, for payments."
        ),
    ]
    created_at: Created


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


# --- webhooks -------------------------------------------------------------------------------------


class WebhookPart(Part):
    """Where a merchant is told; the secret is shown once, when it is made."""

    id: str
    merchant_id: str
    url: str
    created_at: Created


class WebhookList(Answer):
    """The active ones, the oldest first."""

    webhooks: list[WebhookPart]


class ReplayOrder(Why):
    """What is sent again: all that was given up since then, by default for three days."""

    since: Timestamp | None = None


class Replayed(Answer):
    """How many deliveries are sent again, under the same ids."""

    id: str
    deliveries: int
