"""`taprail admin lane`: the wallets that send, what has stopped one, and more of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection

from taprail_common.clock import rfc3339
from taprail_common.errors import OperatorError
from taprail_common.money import format_amount
from taprail_gateway import registry
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.ledger import actions, queries, queue_report, transitions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.queue_report import LaneReport
from taprail_gateway.settle.settings import ChainSettings

lanes: Final = typer.Typer(
    help="Wallets that send transactions, and what has stopped one.", no_args_is_help=True
)

PAUSED_BY_HAND: Final = "operator"
"""How the reason of such a pause begins: no loop lifts it."""

_COIN_DECIMALS: Final = 18
"""Of an EVM chain's own coin (Yellow Paper, section 2.1)."""

Address = Annotated[str, typer.Argument(help="The lane's address.")]


class Purpose(StrEnum):
    """What a wallet sends."""

    PAYMENTS = "payments"
    REWARDS = "rewards"


@lanes.command("list")
def list_lanes(
    context: typer.Context,
    balances: Annotated[
        bool, typer.Option("--balances", help="Ask a node for the coin that each has for gas.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the lanes: next nonce, what is under way, why one is paused, and who has its lease."""
    session = session_of(context)
    reports = session.read(queue_report.lane_reports)
    wei = _balances(session, reports) if balances else {}
    if as_json:
        rows = [lane_row(report) for report in reports]
        output.print_json(
            [{**row, "balance_wei": wei[row["address"]]} if balances else row for row in rows]
        )
        return
    print_lanes(reports, session.clock.now_ms(), wei)


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
    custody, by = session.custody, session.by()

    def work(connection: Connection) -> str:
        made = registry.add_lane(connection, custody, purpose.value, by.at_ms)
        actions.note(connection, "lane-add", made, by, after=purpose.value)
        return made

    address = session.write(work)
    then = "fund it with the chain's coin"
    if purpose is Purpose.REWARDS:
        then += ", and make it a minter: taprail admin reward grant"
    data = {"address": address, "purpose": purpose.value}
    output.done(data, f"lane {address} for {purpose}; {then}", as_json=as_json)


@lanes.command("pause")
def pause(
    context: typer.Context,
    address: Address,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
    as_json: Json = False,
) -> None:
    """Bind nothing new to a lane until it is resumed; what it has signed goes on.

    What it has claimed and not signed goes to other lanes.
    """
    session = session_of(context)
    by = session.by(reason)
    because = f"{PAUSED_BY_HAND}: {reason}"
    session.write(lambda connection: _set_pause(connection, address.lower(), because, by))
    data = {"address": address.lower(), "paused_because": because}
    output.done(data, f"lane {address} is paused", as_json=as_json)


@lanes.command("resume")
def resume(context: typer.Context, address: Address, as_json: Json = False) -> None:
    """Let a paused lane send again, after its cause was looked into and cured.

    A cause that still holds pauses it again; what it has signed is kept in any case.
    """
    session = session_of(context)
    by = session.by()

    def lift(connection: Connection) -> str:
        was = _set_pause(connection, address.lower(), None, by)
        if was is None:
            raise OperatorError(f"lane {address} is not paused", fix="nothing to do")
        return was

    because = session.write(lift)
    sentence = f"lane {address} resumes; it was paused because of {because}"
    output.done({"address": address.lower(), "was": because}, sentence, as_json=as_json)


def lane_row(report: LaneReport) -> dict[str, Any]:
    """A lane for programs: the report, and what a person should do when it is paused."""
    return {**asdict(report), "what_to_do": what_to_do(report)}


def what_to_do(report: LaneReport) -> str | None:
    """What ends the pause of a lane; None when it has none."""
    if report.paused_because is None:
        return None
    cause, _, _text = report.paused_because.partition(":")
    return _CURES.get(cause, f"taprail admin lane resume {report.address}")


_CURES: Final[Mapping[str, str]] = {
    "funds": "send it the chain's coin; it resumes by itself",
    "permanent": "nothing: it resumes when a no-op has taken that transaction's place",
    "wrong_chain": "see to it that the nodes of chain.rpc_urls are on chain.chain_id;"
    " it resumes by itself",
    "foreign_nonce": "find out who else has its key; it resumes by itself, the alert stays",
}
"""By `settle.lanes.PauseCause`, whose module would load web3, which takes a second."""


def print_lanes(
    reports: Sequence[LaneReport], now_ms: int, wei: Mapping[str, int] | None = None
) -> None:
    """The lanes as a table, with their balances if those were asked for; then what to do."""
    rows = [{**asdict(report), "lease": _lease(report)} for report in reports]
    columns = {
        "address": "lane",
        "purpose": "purpose",
        "next_nonce": "next nonce",
        "claimed": "claimed",
        "in_flight": "in flight",
        "under_way": "transactions",
        "oldestS": "oldest, s",
        "paused_because": "paused because",
        "lease": "gateway, until",
    }
    for row in rows:
        since_ms = row["oldest_ms"]
        row["oldestS"] = None if since_ms is None else max(0, now_ms - since_ms) // 1000
    if wei:
        columns["balance"] = "coin"
        for row in rows:
            row["balance"] = format_amount(wei[row["address"]], _COIN_DECIMALS)
    output.listing(rows, as_json=False, columns=columns, what="lane")
    for report in reports:
        if cure := what_to_do(report):
            output.console().print(f"[yellow]![/] lane {report.address} is paused. To do: {cure}.")


def _lease(report: LaneReport) -> str | None:
    if report.lease_owner is None or report.lease_until_ms is None:
        return None
    return f"{report.lease_owner}, {rfc3339(report.lease_until_ms)}"


def _set_pause(connection: Connection, address: str, because: str | None, by: By) -> str | None:
    """Pause a lane, or resume it; why it was paused before."""
    for lane in queries.all_lanes(connection):
        if lane.address == address:
            transitions.pause_lane(connection, address, because)
            action = "lane-pause" if because else "lane-resume"
            actions.note(connection, action, address, by, before=lane.paused_because, after=because)
            return lane.paused_because
    raise OperatorError(f"there is no lane {address}", fix="see `taprail admin lane list`")


def _balances(session: Session, reports: Sequence[LaneReport]) -> dict[str, int]:
    addresses = [report.address for report in reports]
    return asyncio.run(_ask_balances(session.settings.chain, addresses))


async def _ask_balances(settings: ChainSettings, addresses: Sequence[str]) -> dict[str, int]:
    # Loaded here: nothing else needs a node, and web3 takes a second to load.
    from taprail_gateway.settle import replies
    from taprail_gateway.settle.connect import connect

    chain = await connect(settings)
    try:
        asked = [("eth_getBalance", [address, "latest"]) for address in addresses]
        found = await chain.read(asked, replies.quantity)
    finally:
        await chain.close()
    return dict(zip(addresses, found, strict=True))
