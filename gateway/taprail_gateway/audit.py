"""The audit log: every decision with its reasons, in a chain of digests that its key signs.

What is decided in one commit is one link: it holds the digest of the link before, and the gateway
signs its own. Each process has a chain of its own, because two could not share one without waiting
for each other; its first link holds the digest of the newest link of all. So a changed, deleted,
inserted or moved link shows, and nobody can mend the digests without the gateway's key. What the
end of the newest chain said is in the verdicts, which `audit_check` compares.

No UID, key or token is in an entry: cards are named by their uuids. Pure: `ledger.audit_log` is
where links are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from nacl.signing import SigningKey, VerifyKey
from pydantic_core import to_json

from taprail_common.signing import Domain, sign, verify
from taprail_gateway.authorize import Decision, PaymentRequest
from taprail_gateway.ledger.audit_log import Link

MAX_ENTRY_BYTES: Final = 2_000
"""Of one decision: its names are identifiers of 64 characters at most, and there are fewer than ten
rules. A link holds a commit's decisions, which are `group_commit.MAX_GROUP` at most."""

APPROVED: Final = "approved"

Entry = dict[str, Any]


def entry(
    request: PaymentRequest, card_uuid: str | None, decision: Decision, verdict: bytes
) -> Entry:
    """One decision: who asked for what, what was answered, and why."""
    made: Entry = {
        "requester": request.requester,
        "requestId": request.request_id,
        "terminal": request.terminal_id,
        "card": card_uuid,
        "profile": request.evidence.profile,
        "amount": request.amount_units,
        "decision": APPROVED if decision.declined is None else decision.declined.reason,
        "verdict": hashlib.sha256(verdict).hexdigest(),
    }
    if decision.counter is not None:
        made["counter"] = decision.counter
    if decision.declined is not None:
        made["why"] = decision.declined.text
    if decision.risk.fired:
        made["points"] = decision.risk.points
        made["rules"] = {each.rule: each.text for each in decision.risk.fired}
    return made


def link(
    key: SigningKey, chain: str, seq: int, previous: str, entries: Sequence[Entry], at_ms: int
) -> Link:
    """The next link of a chain."""
    made = Link(chain, seq, at_ms, to_json(entries).decode(), previous)
    digest = digest_of(made)
    return replace(made, digest=digest, signature=sign(key, Domain.AUDIT, digest.encode()))


def digest_of(link: Link) -> str:
    """SHA-256 of all that a link says; none but the last part can hold a line's end."""
    said = f"{link.chain}\n{link.seq}\n{link.at_ms}\n{link.previous}\n{link.entries}"
    return hashlib.sha256(said.encode()).hexdigest()


def check_signature(key: VerifyKey, link: Link) -> None:
    """Raise SignatureError unless the gateway has signed this link's digest."""
    verify(key, Domain.AUDIT, link.digest.encode(), link.signature)
