"""`taprail admin lane`: the wallets that send, and what has stopped one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import typer
from sqlalchemy import Connection

from taprail_common.errors import OperatorError
from taprail_gateway import registry
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.ledger import queries, transitions

lanes: Final = typer.Typer(
    help="Wallets that send transactions, and what has stopped one.", no_args_is_help=True
)


class Purpose(StrEnum):
    """What a wallet sends."""

    PAYMENTS = "payments"
    REWARDS = "rewards"


@lanes.command("list")
def list_lanes(context: typer.Context, as_json: Json = False) -> None:
    """List the lanes with their next nonce, what is under way, and why one is paused."""
    rows = session_of(context).read(_rows)
    columns = {
        "address": "lane",
        "purpose": "purpose",
        "next_nonce": "next nonce",
        "under_way": "under way",
        "paused_because": "paused because",
    }
    output.listing(rows, as_json=as_json, columns=columns, what="lane")


@lanes.command("add")
def add(
    context: typer.Context,
    purpose: Annotated[
        Purpose, typer.Option(help="What it sends: payments, or mints of the rewards contract.")
    ] = Purpose.PAYMENTS,
    as_json: Json = False,
) -> None:
    """Make one more wallet. A running gateway sends from it within seconds, once it has gas."""
    session = session_of(context)
    custody, now_ms = session.custody, session.clock.now_ms()
    address = session.write(
        lambda connection: registry.add_lane(connection, custody, purpose.value, now_ms)
    )
    then = "fund it with the chain's coin"
    if purpose is Purpose.REWARDS:
        then += ", and make it a minter of the rewards contract: setMinter(address, true)"
    data = {"address": address, "purpose": purpose.value}
    output.done(data, f"lane {address} for {purpose}; {then}", as_json=as_json)


@lanes.command("resume")
def resume(
    context: typer.Context,
    address: Annotated[str, typer.Argument(help="The lane's address.")],
    as_json: Json = False,
) -> None:
    """Let a paused lane send again, after its cause was looked into and cured.

    A cause that still holds pauses it again; what it has signed is kept in any case.
    """

    def lift(connection: Connection) -> str:
        for lane in queries.all_lanes(connection):
            if lane.address == address.lower():
                if lane.paused_because is None:
                    raise OperatorError(f"lane {address} is not paused", fix="nothing to do")
                transitions.pause_lane(connection, lane.address, None)
                return lane.paused_because
        raise OperatorError(f"there is no lane {address}", fix="see `taprail admin lane list`")

    because = session_of(context).write(lift)
    sentence = f"lane {address} resumes; it was paused because of {because}"
    output.done({"address": address.lower(), "was": because}, sentence, as_json=as_json)


def _rows(connection: Connection) -> list[dict[str, object]]:
    return [
        {
            "address": lane.address,
            "purpose": lane.purpose,
            "next_nonce": lane.next_nonce,
            "under_way": len(queries.open_transactions(connection, lane.address)),
            "paused_because": lane.paused_because,
        }
        for lane in queries.all_lanes(connection)
    ]
