"""`taprail admin card import`: many cards out of one CSV file, all of them or none.

Every line is looked at before anything is stored, so that one pass over the file shows all that is
wrong with it. What is said of a line names its number and its column, never the UID in it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from sqlalchemy import Connection

from taprail_common.errors import InputError, OperatorError
from taprail_gateway import card_life, registry
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.custody import Custody
from taprail_gateway.ledger.actions import By
from taprail_gateway.registry import CardOrder

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_CARDS: Final = 10_000
"""One commit, which the gateway's own wait for: a few seconds."""
MAX_PROBLEMS: Final = 100
_PROBLEMS_FOUND: Final = 1

_NEEDED: Final = frozenset({"user"})
_COLUMNS: Final = (
    *("user", "uid", "address", "name", "profile"),
    *("single_limit", "daily_limit", "time_zone", "expires_on"),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a file."""

    line: int
    problem: str


class _RefusedError(Exception):
    """The commit must not be."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__()
        self.problems = problems


def import_cards(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A CSV file in UTF-8 with a line of names.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is wrong with it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Issue all cards of a CSV file, or none of them; exit code 1 when something is wrong.

    Columns, in any order: user (needed), uid or address, name, profile (sun), single_limit,
    daily_limit, time_zone (UTC), expires_on. What is left out or empty is as with `card issue`.
    """
    session = session_of(context)
    lines = list(_lines(_text_of(file)))
    orders, problems = _read(session, lines)
    custody, by = session.custody, session.by(f"import of {file.name}"[:200])
    issued: list[dict[str, Any]] = []

    def work(connection: Connection) -> None:
        refused = _issue_all(connection, custody, orders, by, issued)
        if refused or problems or dry_run:
            raise _RefusedError(refused)

    try:
        session.write(work)
    except _RefusedError as refusal:
        problems += refusal.problems
        issued.clear()
    problems.sort(key=lambda each: each.line)
    _report(len(lines), issued, problems, dry_run=dry_run, as_json=as_json)
    if problems:
        raise typer.Exit(_PROBLEMS_FOUND)


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as exc:
        raise OperatorError(f"{file} cannot be read ({exc.strerror})", fix="name a file") from exc
    if len(content) > MAX_BYTES:
        raise OperatorError(f"{file} has more than {MAX_BYTES} bytes", fix="split it")
    try:
        return content.decode("utf-8-sig")  # spreadsheets put a mark at its beginning
    except UnicodeDecodeError as exc:
        raise OperatorError(f"{file} is not UTF-8", fix="save it as CSV UTF-8") from exc


def _lines(text: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Each card with the number of its line."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        _check_names(names)
        count = 0
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            count += 1
            if count > MAX_CARDS:
                raise OperatorError(f"more than {MAX_CARDS} cards", fix="split the file")
            if len(values) != len(names):
                raise OperatorError(
                    f"line {reader.line_num} has {len(values)} columns, not {len(names)}",
                    fix="quote what has a comma in it",
                )
            filled = zip(names, (value.strip() for value in values), strict=True)
            yield reader.line_num, {name: value for name, value in filled if value}
    except csv.Error as exc:
        raise OperatorError(
            f"line {reader.line_num} is not CSV ({exc})", fix="correct its quotes"
        ) from exc
    if count == 0:
        raise OperatorError("the file has no cards", fix="write one on each line below the names")


def _check_names(names: list[str]) -> None:
    unknown = sorted(set(names) - set(_COLUMNS))
    missing = sorted(_NEEDED - set(names))
    if unknown or missing or len(set(names)) != len(names):
        told = [f"unknown {', '.join(unknown)}"[:200]] if unknown else []
        told += [f"missing {', '.join(missing)}"] if missing else []
        raise OperatorError(
            f"the first line names no columns of cards: {'; '.join(told) or 'one twice'}",
            fix=f"write some of: {', '.join(_COLUMNS)}",
        )


_Orders = list[tuple[int, CardOrder]]


def _read(
    session: Session, lines: Sequence[tuple[int, Mapping[str, str]]]
) -> tuple[_Orders, list[Problem]]:
    """What the lines ask for, and what is wrong with them by themselves."""
    orders: _Orders = []
    problems = []
    for number, line in lines:
        try:
            orders.append((number, _order(session, line)))
        except InputError as exc:
            problems.append(Problem(number, str(exc)))
    return orders, problems


def _issue_all(
    connection: Connection,
    custody: Custody,
    orders: _Orders,
    by: By,
    issued: list[dict[str, Any]],
) -> list[Problem]:
    """Issue all that can be; what is wrong with the others."""
    issued.clear()  # on a server it may be run again
    problems = []
    for number, order in orders:
        try:
            card = card_life.issue(connection, custody, order, by)
        except (InputError, OperatorError) as exc:
            problems.append(Problem(number, str(exc)))
        else:
            told = {"cardUuid": card.card_uuid, "account": card.account, "user": order.user_id}
            issued.append(told)
    return problems


def _order(session: Session, line: Mapping[str, str]) -> CardOrder:
    if "user" not in line:
        raise InputError("user", "is missing")
    zone, on = line.get("time_zone", "UTC"), line.get("expires_on")
    registry.check_time_zone(zone)
    single, daily = registry.DEFAULT_SINGLE_LIMIT_UNITS, registry.DEFAULT_DAILY_LIMIT_UNITS
    return CardOrder(
        user_id=line["user"],
        uid=_uid(line.get("uid", "")),
        address=line.get("address"),
        name=line.get("name", ""),
        profile=line.get("profile", "sun"),
        single_limit_units=_units(session, "single_limit", line, single),
        daily_limit_units=_units(session, "daily_limit", line, daily),
        time_zone=zone,
        expires_at_ms=None if on is None else card_life.end_of_day_ms(on, zone),
    )


def _units(session: Session, column: str, line: Mapping[str, str], default_units: int) -> int:
    if column not in line:
        return default_units
    try:
        return session.units(line[column])
    except InputError as exc:
        raise InputError(column, str(exc).partition(": ")[2]) from exc


def _uid(text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise InputError("uid", "must be hex digits") from None


def _report(
    count: int,
    issued: list[dict[str, Any]],
    problems: list[Problem],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    told = problems[:MAX_PROBLEMS]
    if as_json:
        data = {"lines": count, "issued": issued, "problems": [asdict(each) for each in told]}
        output.print_json(data)
        return
    console = output.console()
    for problem in told:
        console.print(f"[red]✗[/] line {problem.line}: {escape(problem.problem)}")
    if len(problems) > len(told):
        console.print(f"and {len(problems) - len(told)} more")
    if problems:
        console.print(f"None of {count} cards was issued.")
    elif dry_run:
        console.print(f"[green]✓[/] {count} cards could be issued; none was.")
    else:
        columns = {"cardUuid": "card", "user": "user", "account": "account to fund"}
        output.listing(issued, as_json=False, columns=columns, what="card")
