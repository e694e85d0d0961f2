"""Where the audit log is kept: the end of a chain, its next link, and all links for a check.

What a link says, and why it can be believed, is the business of `audit`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from sqlalchemy import Connection, bindparam, desc, func, insert, select

from taprail_gateway.ledger.prepared import prepared
from taprail_gateway.ledger.schema import audit_links

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """One row; `entries` are JSON, exactly as they were hashed."""

    chain: str
    seq: int
    at_ms: int
    entries: str
    previous: str
    digest: str = ""
    signature: str = ""

    def decisions(self) -> list[Entry]:
        """What was decided in this commit, in its order."""
        decoded: list[Entry] = json.loads(self.entries)
        return decoded


_l = audit_links.c
_NAMES: Final = tuple(each.name for each in fields(Link))
# By the greatest, not by LIMIT: SQLAlchemy would put a parameter for an offset into that.
_OTHERS: Final = audit_links.alias()
_LAST: Final = select(func.max(_OTHERS.c.seq)).where(_OTHERS.c.chain == bindparam("which"))
_END: Final = prepared(
    select(_l.seq, _l.digest).where(
        _l.chain == bindparam("which"), _l.seq == _LAST.scalar_subquery()
    )
)
_NEWEST: Final = prepared(
    select(_l.digest).where(_l.at_ms == select(func.max(_OTHERS.c.at_ms)).scalar_subquery())
)
_INSERT: Final = prepared(insert(audit_links), _NAMES)
_LINKS_PER_READ: Final = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which decisions; what is None is not asked about. Times are of their commits."""

    card: str | None = None
    terminal: str | None = None
    decision: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None

    def fits(self, entry: Entry) -> bool:
        """Whether it is one of them, by what it says."""
        asked = {"card": self.card, "terminal": self.terminal, "decision": self.decision}
        return all(value is None or entry.get(name) == value for name, value in asked.items())


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision, and where in the log it is."""

    at_ms: int
    chain: str
    seq: int
    entry: Entry


def end(connection: Connection, chain: str) -> tuple[int, str]:
    """Number and digest that the next link of a chain goes on from.

    A chain's first link goes on from the newest link of all, so that no older chain can vanish.
    """
    found = _END.rows(connection, {"which": chain})
    if not found:
        return 0, _NEWEST.value(connection, {}) or ""
    last, digest = found[0]
    return last + 1, digest


def append(connection: Connection, link: Link) -> None:
    """Store a link; the key notices a second one of its number."""
    _INSERT.run(connection, asdict(link))


def decisions(connection: Connection, wanted: Wanted) -> Iterator[Decided]:
    """Those that are wanted, the newest first. What was spoilt is `audit_check`'s matter."""
    statement = select(*(_l[name] for name in _NAMES)).order_by(
        desc(_l.at_ms), _l.chain, desc(_l.seq)
    )
    if wanted.from_ms is not None:
        statement = statement.where(_l.at_ms >= wanted.from_ms)
    if wanted.until_ms is not None:
        statement = statement.where(_l.at_ms < wanted.until_ms)
    for said in (wanted.card, wanted.terminal, wanted.decision):
        if said is not None:  # as JSON has it; which name it stands for is looked at below
            statement = statement.where(_l.entries.contains(json.dumps(said), autoescape=True))
    for row in connection.execute(statement.execution_options(yield_per=_LINKS_PER_READ)):
        link = Link(*row)
        for entry in reversed(_readable(link)):
            if wanted.fits(entry):
                yield Decided(link.at_ms, link.chain, link.seq, entry)


def _readable(link: Link) -> list[Entry]:
    try:
        return [each for each in link.decisions() if isinstance(each, dict)]
    except (json.JSONDecodeError, TypeError):
        return []


def links(connection: Connection) -> Iterator[Link]:
    """All links, chain by chain, each in its order."""
    statement = select(*(_l[name] for name in _NAMES)).order_by(_l.chain, _l.seq)
    for row in connection.execute(statement.execution_options(yield_per=_LINKS_PER_READ)):
        yield Link(*row)
