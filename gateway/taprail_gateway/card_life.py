"""What happens to a card after it was issued: functions on a connection, each on record.

Answers for which changes a card may go through, and for noting who made them, in the commit that
makes them. Issuing is `registry`'s. All of it takes effect at the next tap, on every gateway.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, RowMapping, desc, select, update

from taprail_common.errors import InputError, OperatorError
from taprail_gateway import registry
from taprail_gateway.authorize import Profile, spend_day
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import actions, activities, schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.registry import CardOrder, IssuedCard

_c, _a, _p = schema.cards.c, schema.accounts.c, schema.payments.c

YEARS: Final = range(2000, 3000)
"""Of a date on which a card may end; any other is a slip of the finger."""


@dataclass(frozen=True, slots=True)
class Successor:
    """The card that takes another one's place; what is None is taken over from that one."""

    uid: bytes = field(repr=False)
    profile: str | None = None
    name: str | None = None


def issue(connection: Connection, custody: Custody, order: CardOrder, by: By) -> IssuedCard:
    """Issue a card, on record."""
    issued = registry.issue_card(connection, custody, order, by.at_ms)
    after = {"profile": order.profile, "account": issued.account, "user": order.user_id}
    actions.note(connection, "card-issue", issued.card_uuid, by, after=after)
    return issued


def set_status(connection: Connection, card_uuid: str, status: str, by: By) -> None:
    """Freeze (`frozen`) or thaw (`active`) a card."""
    before = row_of(connection, card_uuid)["status"]
    registry.set_card_status(connection, card_uuid, status)
    action = "card-freeze" if status == "frozen" else "card-unfreeze"
    actions.note(connection, action, card_uuid, by, before=before, after=status)


def set_limits(
    connection: Connection,
    card_uuid: str,
    by: By,
    *,
    single_limit_units: int | None = None,
    daily_limit_units: int | None = None,
) -> None:
    """Set the limits that are given; the others stay."""
    before = _limits(connection, card_uuid)
    registry.set_card_limits(
        connection,
        card_uuid,
        single_limit_units=single_limit_units,
        daily_limit_units=daily_limit_units,
    )
    after = _limits(connection, card_uuid)
    actions.note(connection, "card-limits", card_uuid, by, before=before, after=after)


def set_end(connection: Connection, card_uuid: str, expires_at_ms: int | None, by: By) -> None:
    """Refuse a card from an instant on; None: never."""
    row = row_of(connection, card_uuid)
    _check_in_place(row)
    connection.execute(
        update(schema.cards).where(_c.uuid == card_uuid).values(expires_at_ms=expires_at_ms)
    )
    before = row["expires_at_ms"]
    actions.note(connection, "card-expire", card_uuid, by, before=before, after=expires_at_ms)


def replace_card(
    connection: Connection, custody: Custody, card_uuid: str, successor: Successor, by: By
) -> IssuedCard:
    """Give a card's account to a new card; the old one is refused from this commit on, for good.

    Limits, time zone, owner and end are taken over, and so is the day: what the old card has spent
    of it is spent, and comes back when such a payment fails. That it was frozen is not taken over,
    since lost cards are frozen first. What the old card has under way is settled.
    """
    _lock(connection, card_uuid)
    row = row_of(connection, card_uuid)
    _check_in_place(row)
    if row["profile"] == Profile.SIGNED:
        raise OperatorError(
            f"card {card_uuid!r} alone can spend from its account",
            fix="expire it, issue another one, and move what is on it by its key",
        )
    order = CardOrder(
        user_id=row["user_id"],
        uid=successor.uid,
        profile=successor.profile or row["profile"],
        name=successor.name or row["name"],
        single_limit_units=row["single_limit_units"],
        daily_limit_units=row["daily_limit_units"],
        time_zone=row["time_zone"],
        expires_at_ms=row["expires_at_ms"],
    )
    if order.profile == Profile.SIGNED:
        raise InputError("profile", "a card that signs has an account of its own: issue it")
    issued = registry.issue_card_on(connection, custody, order, row["account"], by.at_ms)
    _hand_on(connection, row, issued.card_uuid)
    actions.note(connection, "card-replace", card_uuid, by, after=issued.card_uuid)
    return issued


def end_of_day_ms(text: str, time_zone: str) -> int:
    """When a date (2027-12-31) is over where the card lives; raises InputError."""
    try:
        last = date.fromisoformat(text)
    except ValueError:
        raise InputError("on", "must be a date like 2027-12-31") from None
    if last.year not in YEARS:
        raise InputError("on", f"must be of the years {YEARS[0]} to {YEARS[-1]}")
    over = datetime.combine(last + timedelta(days=1), time(), ZoneInfo(time_zone))
    return int(over.timestamp() * 1000)


def last_day(expires_at_ms: int, time_zone: str) -> str:
    """The last date on which such a card is taken."""
    over = datetime.fromtimestamp(expires_at_ms / 1000, UTC).astimezone(ZoneInfo(time_zone))
    return (over - timedelta(milliseconds=1)).date().isoformat()


def describe(connection: Connection, card_uuid: str, now_ms: int) -> dict[str, Any]:
    """All that may be told of a card: never its UID, nor a key."""
    row = row_of(connection, card_uuid)
    day = spend_day(now_ms, row["time_zone"])
    return {
        **{name: row[name] for name in _TOLD},
        "status": standing(row["status"], row["expires_at_ms"], now_ms),
        "balance_units": row["balance_units"],
        "held_units": row["held_units"],
        "spent_today_units": _spent(connection, row["day_of"] or card_uuid, day),
        "today": day,
        "last_payment": _last_payment(connection, card_uuid),
    }


def standing(status: str, expires_at_ms: int | None, now_ms: int) -> str:
    """A card's status as of now: its date may have come."""
    is_over = expires_at_ms is not None and now_ms >= expires_at_ms
    return "expired" if is_over and status == "active" else status


_TOLD: Final = (
    *("uuid", "name", "user_id", "profile", "account", "single_limit_units", "daily_limit_units"),
    *("time_zone", "sun_counter", "key_version", "created_at_ms", "expires_at_ms", "replaced_by"),
)


def row_of(connection: Connection, card_uuid: str) -> RowMapping:
    """A card's row with its account's; raises OperatorError."""
    registry.require(connection, schema.cards, "card", card_uuid)
    statement = (
        select(schema.cards, _a.balance_units, _a.held_units)
        .join_from(schema.cards, schema.accounts, _c.account == _a.address)
        .where(_c.uuid == card_uuid)
    )
    return connection.execute(statement).mappings().one()


def _hand_on(connection: Connection, old: RowMapping, new_uuid: str) -> None:
    """End a card; its successor goes on with its days and with what was usual of it."""
    ended = {"status": "expired", "replaced_by": new_uuid}
    connection.execute(update(schema.cards).where(_c.uuid == old["uuid"]).values(ended))
    days = {"day_of": old["day_of"] or old["uuid"]}
    connection.execute(update(schema.cards).where(_c.uuid == new_uuid).values(days))
    use = activities.of_card(connection, old["uuid"])
    if use is not None:
        activities.store(connection, {(activities.CARD, new_uuid): use.handed_on()})


def _lock(connection: Connection, card_uuid: str) -> None:
    """Wait for the taps that are being decided; the next ones find what this transaction leaves."""
    row = select(_c.uuid).where(_c.uuid == card_uuid).with_for_update(key_share=True)
    connection.execute(row).close()


def _check_in_place(row: RowMapping) -> None:
    if row["replaced_by"] is not None:
        raise OperatorError(
            f"card {row['uuid']!r} was replaced for good",
            fix=f"its account has {row['replaced_by']} now",
        )


def _limits(connection: Connection, card_uuid: str) -> dict[str, int]:
    row = row_of(connection, card_uuid)
    return {"single": row["single_limit_units"], "daily": row["daily_limit_units"]}


def _spent(connection: Connection, card_uuid: str, day: str) -> int:
    s = schema.card_spend.c
    statement = select(s.spent_units).where(s.card_uuid == card_uuid, s.day == day)
    return int(connection.scalar(statement) or 0)


def _last_payment(connection: Connection, card_uuid: str) -> dict[str, Any] | None:
    statement = (
        select(_p.id, _p.created_at_ms, _p.amount_units, _p.state, _p.terminal_id)
        .where(_p.card_uuid == card_uuid)
        .order_by(desc(_p.created_at_ms))
        .limit(1)
    )
    row = connection.execute(statement).mappings().one_or_none()
    return None if row is None else dict(row)
