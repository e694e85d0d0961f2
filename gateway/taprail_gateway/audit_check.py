"""Whether the audit log is as it was written: every link, every chain, and the verdicts beside it.

A link that was changed has another digest than it says, or one that the gateway has not signed; one
that is missing, added or moved leaves a chain whose numbers or digests do not follow each other.
The newest links could be cut off without a trace in the chain itself: so every verdict that was
given since the log began must be in it, byte for byte. Who deletes verdicts as well has taken the
answers away that retries are given; payments refer to theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from nacl.signing import VerifyKey
from sqlalchemy import Connection, func, select

from taprail_common.errors import SignatureError
from taprail_gateway import audit
from taprail_gateway.ledger import audit_log
from taprail_gateway.ledger.audit_log import Link
from taprail_gateway.ledger.prepared import Lookup
from taprail_gateway.ledger.schema import verdicts

MAX_PROBLEMS: Final = 20
"""Sentences kept; a log that was tampered with may have one for each of its rows."""

_v = verdicts.c
_VERDICTS: Final = Lookup(
    select(_v.requester, _v.request_id, _v.body), (_v.requester, _v.request_id)
)


@dataclass
class AuditReport:
    """What was looked at, and what is wrong with it."""

    links: int = 0
    decisions: int = 0
    chains: int = 0
    problems: list[str] = field(default_factory=list)
    more: int = 0
    """Problems beyond the first MAX_PROBLEMS."""

    def found(self, problem: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more += 1


def check_audit(connection: Connection, *keys: VerifyKey) -> AuditReport:
    """Look at all of the log; `keys` are the gateway's, the one of today and those of before."""
    report = AuditReport()
    began: dict[str, Link] = {}
    digests: set[str] = set()
    before: Link | None = None
    for link in audit_log.links(connection):
        name = f"link {link.seq} of {link.chain}"
        if before is None or before.chain != link.chain:
            began[link.chain] = link
            before = None
        for problem in (*_own(link, keys), *_place(link, before), *_verdicts(connection, link)):
            report.found(f"{name} {problem}")
        digests.add(link.digest)
        report.links += 1
        report.decisions += len(_decisions(link))
        before = link
    report.chains = len(began)
    for problem in (*_beginnings(began, digests), *_untold(connection, began, report.decisions)):
        report.found(problem)
    return report


def _own(link: Link, keys: Sequence[VerifyKey]) -> Iterator[str]:
    """What is wrong with a link by itself."""
    if audit.digest_of(link) != link.digest:
        yield "is not what its digest says: it was changed"
    if not any(_has_signed(key, link) for key in keys):
        yield "has a digest that this gateway has not signed"


def _has_signed(key: VerifyKey, link: Link) -> bool:
    try:
        audit.check_signature(key, link)
    except SignatureError:
        return False
    return True


def _place(link: Link, before: Link | None) -> Iterator[str]:
    """What is wrong with where it stands."""
    expected = 0 if before is None else before.seq + 1
    if link.seq != expected:
        yield f"comes where {expected} should be: links are missing or were moved"
    elif before is not None and link.previous != before.digest:
        yield "does not follow from the link before it"


def _verdicts(connection: Connection, link: Link) -> Iterator[str]:
    """Where its decisions are not the verdicts that were given."""
    told = {(each["requester"], each["requestId"]): each["verdict"] for each in _decisions(link)}
    given = {
        (requester, request): hashlib.sha256(body).hexdigest()
        for requester, request, body in _VERDICTS.rows(connection, list(told))
    }
    for key, digest in told.items():
        if given.get(key) != digest:
            what = "is missing" if key not in given else "is another"
            yield f"tells of request {key[1]} by {key[0]}, whose verdict {what}"


def _decisions(link: Link) -> list[audit_log.Entry]:
    """What a link holds; nothing when it was spoilt, of which its digest tells."""
    try:
        found = link.decisions()
        return [each for each in found if {"requester", "requestId", "verdict"} <= each.keys()]
    except (json.JSONDecodeError, AttributeError, TypeError):
        return []


def _beginnings(began: dict[str, Link], digests: set[str]) -> Iterator[str]:
    """A chain goes on from a link of another one, which is there. The very first chains, of
    gateways that began at the same moment, go on from none."""
    for chain, link in began.items():
        if link.seq == 0 and link.previous and link.previous not in digests:
            yield f"chain {chain} goes on from a link that is missing"


def _untold(connection: Connection, began: dict[str, Link], decisions: int) -> Iterator[str]:
    """Verdicts that were given since the log began, and are not in it."""
    if not began:
        return
    since_ms = min(link.at_ms for link in began.values())
    count = select(func.count()).select_from(verdicts).where(_v.created_at_ms >= since_ms)
    given = connection.scalar(count) or 0
    if given != decisions:
        yield f"{given} verdicts were given since the log began, it tells of {decisions}"
