"""`taprail admin audit`: what was decided and why, and whether the record of it can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from sqlalchemy import Connection

from taprail_common.clock import rfc3339
from taprail_common.errors import InputError
from taprail_common.operator_words import what_to_do
from taprail_common.signing import load_key_file
from taprail_gateway import audit as decided
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.audit_check import check_audit
from taprail_gateway.ledger import audit_log
from taprail_gateway.ledger.audit_log import Decided, Wanted
from taprail_gateway.verdict_keys import former_keys

audit: Final = typer.Typer(help="The record of all decisions about payments.", no_args_is_help=True)

_PROBLEMS_FOUND: Final = 1


@audit.callback()
def group() -> None:
    """The record of all decisions about payments."""


@audit.command("verify")
def verify(context: typer.Context, as_json: Json = False) -> None:
    """Check that no decision was changed, deleted, inserted or moved; exit code 1 when one was."""
    session = session_of(context)
    key = load_key_file(session.settings.key_file, "gateway key").verify_key
    before = [each.verify_key for each in former_keys(session.settings.key_file)]
    report = session.read(lambda connection: check_audit(connection, key, *before))
    if as_json:
        output.print_json({"ok": not report.problems, **asdict(report)})
    else:
        for problem in report.problems:
            output.console().print(f"[red]✗[/] {escape(problem)}")
        if report.more:
            output.console().print(f"[red]✗[/] and {report.more} more")
        mark = "[red]✗[/]" if report.problems else "[green]✓[/]"
        output.console().print(
            f"{mark} {report.decisions} decisions in {report.links} links of {report.chains} chains"
        )
    if report.problems:
        raise typer.Exit(_PROBLEMS_FOUND)


Time = Annotated[str | None, typer.Option(help="A date or a time, like 2027-05-31T18:00; UTC.")]


@audit.command("list")
def list_decisions(
    context: typer.Context,
    card: Annotated[str | None, typer.Option(help="Only of this card.")] = None,
    terminal: Annotated[str | None, typer.Option(help="Only at this terminal.")] = None,
    decision: Annotated[
        str | None, typer.Option(help="approved, declined, or a reason's code like daily_limit.")
    ] = None,
    since: Time = None,
    until: Time = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many at most.")] = 50,
    as_json: Json = False,
) -> None:
    """List decisions with their reasons, the newest first.

    What is listed is what is stored; whether it can be believed says `audit verify`.
    """
    session = session_of(context)
    is_any_decline = decision == _DECLINED
    wanted = Wanted(
        card,
        terminal,
        None if is_any_decline else decision,
        _time_ms("since", since),
        _time_ms("until", until),
    )

    def find(connection: Connection) -> list[Decided]:
        found = audit_log.decisions(connection, wanted)
        if is_any_decline:
            found = (each for each in found if each.entry["decision"] != decided.APPROVED)
        return list(islice(found, limit))

    rows = session.read(find)
    if as_json:
        output.print_json([_as_data(each) for each in rows])
        return
    output.listing(
        [_in_words(session, each) for each in rows], as_json=False, columns=_SHOWN, what="decision"
    )


_DECLINED: Final = "declined"
"""Whatever the reason."""

_SHOWN: Final = {
    "at": "when",
    "terminal": "terminal",
    "card": "card",
    "amount": "amount",
    "decision": "decision",
    "why": "why",
}


def _as_data(found: Decided) -> dict[str, Any]:
    place = {"at": rfc3339(found.at_ms), "chain": found.chain, "link": found.seq}
    return {**place, **found.entry, "whatToDo": _advice(found.entry)}


def _in_words(session: Session, found: Decided) -> dict[str, Any]:
    entry = found.entry
    sentences = [entry.get("why"), *entry.get("rules", {}).values(), _advice(entry)]
    told = dict.fromkeys(each for each in sentences if each)  # a rule's may be in the reason
    return {
        "at": rfc3339(found.at_ms),
        "terminal": entry.get("terminal"),
        "card": entry.get("card") or "unknown",
        "amount": session.text(entry["amount"]),
        "decision": entry["decision"],
        "why": ". ".join(told) or None,
    }


def _advice(entry: Mapping[str, Any]) -> str | None:
    return None if entry["decision"] == decided.APPROVED else what_to_do(entry["decision"])


def _time_ms(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(name, "must be like 2027-05-31 or 2027-05-31T18:00:00") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
