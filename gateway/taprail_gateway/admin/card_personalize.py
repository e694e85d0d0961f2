"""`taprail admin card personalize`: write an NTAG 424 DNA on a reader, here or elsewhere.

Answers for which card it is and which keys it gets. The ledger comes first: a card is issued before
anything is written to it, so that a cut-off run leaves a card that is known and not yet any good.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection, RowMapping, select, update

from taprail_common.errors import OperatorError
from taprail_gateway import card_life, issuer, registry
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.authorize import Profile
from taprail_gateway.ledger import actions, activities, schema
from taprail_gateway.ledger.actions import By
from taprail_gateway.personalize.carrier import (
    CardLeftError,
    Carrier,
    PresentCard,
    command_of,
    connected,
)
from taprail_gateway.personalize.chip import UID_BYTES
from taprail_gateway.personalize.keys import key_set, older_sets
from taprail_gateway.personalize.layout import Layout, Mirror
from taprail_gateway.personalize.session import Wanted, personalize
from taprail_gateway.registry import CardOrder

TRIES: Final = 5
"""A hand that wavers is met with patience: each try goes on where the last one was cut off."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the command line asks for."""

    layout: Layout
    mirror: Mirror
    user_id: str | None
    name: str
    single_limit_units: int
    daily_limit_units: int
    time_zone: str
    wait_s: int
    by: By


def personalize_card(
    context: typer.Context,
    reader: Annotated[
        str,
        typer.Option(
            help="tty:/dev/serial0, DRIVER:PORT, or exec:COMMAND that runs"
            " `taprail terminal relay` elsewhere."
        ),
    ],
    url: Annotated[
        str, typer.Option(help="What a phone opens: https://host/path. The proof is added to it.")
    ],
    mirror: Annotated[
        Mirror, typer.Option(help="plain shows UID and counter to whoever reads the card.")
    ] = Mirror.ENCRYPTED,
    user: Annotated[
        str | None, typer.Option(help="Issue the card to them first, if it is not issued yet.")
    ] = None,
    name: Annotated[str, typer.Option(help="A name for a card that is issued.")] = "",
    single_limit: Annotated[str | None, typer.Option(help="Of a card that is issued.")] = None,
    daily_limit: Annotated[str | None, typer.Option(help="Of a card that is issued.")] = None,
    time_zone: Annotated[str, typer.Option(help="Of a card that is issued.")] = "UTC",
    wait: Annotated[int, typer.Option(min=1, max=600, help="Seconds to wait for a card.")] = 60,
    as_json: Json = False,
) -> None:
    """Write a card's keys, settings and address. May be cut off at any moment and run again.

    The card gets the newest version of the issuer's keys, whichever it had (see `card keys`).
    Whoever listens while a card fresh from its box is written can work out its keys, since it opens
    by zeros: do it in a place that you trust. Without --user the card must be issued already.
    """
    session = session_of(context)
    plan = _Plan(
        layout=Layout.of(url, mirror),
        mirror=mirror,
        user_id=user,
        name=name,
        single_limit_units=_units(session, single_limit, registry.DEFAULT_SINGLE_LIMIT_UNITS),
        daily_limit_units=_units(session, daily_limit, registry.DEFAULT_DAILY_LIMIT_UNITS),
        time_zone=time_zone,
        wait_s=wait,
        by=session.by(),
    )
    say = _silent if as_json else _say
    written = asyncio.run(_write_on(session, plan, command_of(reader), say))
    output.record(
        written,
        as_json=as_json,
        labels={
            "cardUuid": "card",
            "account": "account to fund",
            "counter": "tap counter",
            "commands": "commands",
        },
    )


def _units(session: Session, text: str | None, default_units: int) -> int:
    return default_units if text is None else session.units(text)


def _say(text: str) -> None:
    output.console().print(text, markup=False)


def _silent(_text: str) -> None:
    """For programs: the answer is all."""


async def _write_on(
    session: Session, plan: _Plan, command: Sequence[str], say: Callable[[str], None]
) -> dict[str, Any]:
    async with connected(command) as carrier:
        say(f"Reader: {carrier.description}. Put one card on it and leave it there.")
        present = await _card(carrier, plan)
        row = _issued(session, plan, present.uid)
        wanted = _wanted(session, plan, present.uid, row)
        counter = await _with_patience(carrier, wanted, plan, say)
        session.write(lambda connection: _note(connection, row, wanted, counter, plan))
        return {
            "cardUuid": row["uuid"],
            "account": row["account"],
            "mirror": str(plan.mirror),
            "counter": counter,
            "commands": carrier.carried,
        }


async def _with_patience(
    carrier: Carrier, wanted: Wanted, plan: _Plan, say: Callable[[str], None]
) -> int:
    for _ in range(TRIES - 1):
        try:
            return await carrier.run(personalize(wanted, secrets.token_bytes))
        except CardLeftError:
            say("The card has left before it was done. Put it back: it goes on from there.")
        if (await _card(carrier, plan)).uid != wanted.uid:
            raise OperatorError(
                "this is another card, and the first one is not finished",
                fix="put the first one back and run this again",
            )
    return await carrier.run(personalize(wanted, secrets.token_bytes))


async def _card(carrier: Carrier, plan: _Plan) -> PresentCard:
    for _ in range(TRIES):
        try:
            present = await carrier.card(plan.wait_s)
        except CardLeftError:
            continue
        if present is None:
            raise OperatorError(f"no card came for {plan.wait_s} s", fix="put one on the reader")
        if not present.iso_dep or len(present.uid) != UID_BYTES:
            raise OperatorError(
                "this card is no NTAG 424 DNA, or shows no serial number of its own",
                fix="use another card",
            )
        return present
    raise OperatorError("no card stays on the reader", fix="lay it down and let it lie")


def _issued(session: Session, plan: _Plan, uid: bytes) -> RowMapping:
    """The card's row; issues it first where that is asked for."""
    custody = session.custody
    c = schema.cards.c
    by_digest = select(c.uuid).where(c.uid_digest == custody.uid_digest(uid))

    def find(connection: Connection) -> RowMapping:
        card_uuid = connection.scalar(by_digest)
        if card_uuid is None:
            if plan.user_id is None:
                raise OperatorError("this card is not issued", fix="name its --user")
            order = CardOrder(
                user_id=plan.user_id,
                uid=uid,
                name=plan.name,
                single_limit_units=plan.single_limit_units,
                daily_limit_units=plan.daily_limit_units,
                time_zone=plan.time_zone,
            )
            card_uuid = card_life.issue(connection, custody, order, plan.by).card_uuid
        return card_life.row_of(connection, card_uuid)

    row = session.write(find)
    if row["profile"] != Profile.SUN:
        raise OperatorError(
            f"card {row['uuid']} is of the profile {row['profile']}, which has no keys to write",
            fix="replace it by one with --profile sun",
        )
    if row["replaced_by"] is not None:
        raise OperatorError(f"card {row['uuid']} was replaced", fix="use another card")
    return row


def _wanted(session: Session, plan: _Plan, uid: bytes, row: RowMapping) -> Wanted:
    custody = session.custody
    issuers = session.read(lambda connection: issuer.load(connection, custody))
    version = max(issuers)
    return Wanted(
        uid=uid,
        keys=key_set(issuers[version], version, uid),
        layout=plan.layout,
        mirror=plan.mirror,
        old=older_sets(issuers, version, uid),
        was_used=session.read(lambda connection: _was_tapped(connection, row["uuid"])),
    )


def _was_tapped(connection: Connection, card_uuid: str) -> bool:
    use = activities.of_card(connection, card_uuid)
    return use is not None and use.minute > 0  # 0: taken over from the card that it replaced


def _note(
    connection: Connection, row: RowMapping, wanted: Wanted, counter: int, plan: _Plan
) -> None:
    """On record, and with the tap used up that whoever carried it has seen."""
    c = schema.cards.c
    # A card that never paid may have begun its counter anew; one that did never goes back.
    as_read = c.sun_counter == row["sun_counter"]
    may = c.sun_counter < counter if wanted.was_used else as_read
    this = update(schema.cards).where(c.uuid == row["uuid"])
    connection.execute(this.where(may).values(sun_counter=counter))
    # Only now, when all of it is verified on the card: until then it pays by its old keys, or not.
    connection.execute(this.values(key_version=wanted.keys.version))
    before = {"keyVersion": row["key_version"]}
    after = {"mirror": str(plan.mirror), "keyVersion": wanted.keys.version}
    actions.note(connection, "card-personalize", row["uuid"], plan.by, before=before, after=after)
