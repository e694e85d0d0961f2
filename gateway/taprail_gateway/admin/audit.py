"""`taprail admin audit`: what was decided and why, and whether the record of it can be believed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import typer
from rich.markup import escape

from taprail_common.signing import load_key_file
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, session_of
from taprail_gateway.audit_check import check_audit

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
    report = session.read(lambda connection: check_audit(connection, key))
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
