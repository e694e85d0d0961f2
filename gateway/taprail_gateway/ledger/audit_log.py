"""Where the audit log is kept: the end of a chain, its next link, and all links for a check.

What a link says, and why it can be believed, is the business of `audit`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, select

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


def end(connection: Connection, chain: str) -> tuple[int, str]:
    """Number and digest that the next link of a chain goes on from.

    A chain's first link goes on from the newest link of all, so that no older chain can vanish.
    """
    found = list(_END.run(connection, {"which": chain}).all())
    if not found:
        return 0, _NEWEST.run(connection, {}).scalar() or ""
    last, digest = tuple(found[0])
    return last + 1, digest


def append(connection: Connection, link: Link) -> None:
    """Store a link; the key notices a second one of its number."""
    _INSERT.run(connection, asdict(link))


def links(connection: Connection) -> Iterator[Link]:
    """All links, chain by chain, each in its order."""
    statement = select(*(_l[name] for name in _NAMES)).order_by(_l.chain, _l.seq)
    for row in connection.execute(statement.execution_options(yield_per=_LINKS_PER_READ)):
        yield Link(*row)
