"""Bearer tokens by their ids: which were issued, and which of them are good for nothing any more.

Functions on a connection. The tokens themselves are nowhere: who reads the ledger can act as
nobody. One that is not in it is good all the same, since others issue as well; it can be revoked by
its id, if it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from taprail_common.errors import OperatorError
from taprail_common.ids import check_identifier
from taprail_gateway.ledger import actions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.schema import tokens, users
from taprail_gateway.registry import require

MAX_DAYS: Final = 3_650
"""The longest that a token is good for."""

MAX_LISTED: Final = 1_000

_DAY_MS: Final = 86_400_000
_KEPT_MS: Final = 90 * _DAY_MS
"""How long one is listed after its end."""

_t = tokens.c
_REVOKED: Final = select(_t.revoked_at_ms).where(_t.id == bindparam("id"))
_REVOKED_SINCE: Final = select(_t.id).where(_t.revoked_at_ms >= bindparam("since_ms"))


@dataclass(frozen=True, slots=True)
class TokenRow:
    """What is known of a token; `issued_by` is unset for one that somebody else has issued."""

    id: str
    user_id: str
    scopes: str
    issued_at_ms: int
    issued_by: str | None
    expires_at_ms: int
    revoked_at_ms: int | None = None
    revoked_by: str | None = None

    def status(self, now_ms: int) -> str:
        """Whether it is good: `active`, `revoked` or `expired`."""
        if self.revoked_at_ms is not None:
            return "revoked"
        return "active" if now_ms < self.expires_at_ms else "expired"


def note_issued(
    connection: Connection, token_id: str, user_id: str, scopes: Sequence[str], days: int, by: By
) -> None:
    """Write down a token before it is handed out, and forget those that ended long ago."""
    connection.execute(delete(tokens).where(_t.expires_at_ms < by.at_ms - _KEPT_MS))
    _insert(
        connection,
        TokenRow(
            token_id,
            user_id,
            " ".join(sorted(scopes)),
            by.at_ms,
            by.actor,
            by.at_ms + days * _DAY_MS,
        ),
    )
    actions.note(connection, "issue-token", token_id, by, after=user_id)


def revoke(connection: Connection, token_id: str, by: By, *, issued_to: str | None = None) -> None:
    """Have a token good for nothing from now on; done again, nothing changes.

    `issued_to` is the user of one that somebody else has issued, which is not known here.
    """
    found = connection.execute(select(_t.user_id, _t.revoked_at_ms).where(_t.id == token_id))
    row = found.one_or_none()
    if row is None:
        _note_elsewhere(connection, token_id, issued_to, by)
    elif issued_to not in {None, row.user_id}:
        raise OperatorError(f"token {token_id!r} is {row.user_id}'s", fix="name its user, or none")
    if row is None or row.revoked_at_ms is None:
        revoked = {"revoked_at_ms": by.at_ms, "revoked_by": by.actor}
        connection.execute(update(tokens).where(_t.id == token_id).values(revoked))
    actions.note(connection, "revoke-token", token_id, by)


def _note_elsewhere(connection: Connection, token_id: str, issued_to: str | None, by: By) -> None:
    if issued_to is None:
        raise OperatorError(
            f"no token {token_id!r} was issued here",
            fix="see `taprail admin token list`; name its user for one that was issued elsewhere",
            code="not_found",
        )
    check_identifier("token", token_id)
    require(connection, users, "user", issued_to)
    # When it ends is not known here; nobody's should be good for longer than ours.
    ends_at_ms = by.at_ms + MAX_DAYS * _DAY_MS
    _insert(connection, TokenRow(token_id, issued_to, "", by.at_ms, None, ends_at_ms))


def _insert(connection: Connection, row: TokenRow) -> None:
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    connection.execute(insert(tokens).values(values))


def listed(connection: Connection, *, user_id: str | None, now_ms: int | None) -> list[TokenRow]:
    """Tokens, the newest first: a user's or all; with a time, those that are good then."""
    wanted = select(*(_t[field.name] for field in fields(TokenRow)))
    if user_id is not None:
        wanted = wanted.where(_t.user_id == user_id)
    if now_ms is not None:
        wanted = wanted.where(_t.revoked_at_ms.is_(None), _t.expires_at_ms > now_ms)
    newest = wanted.order_by(_t.issued_at_ms.desc(), _t.id).limit(MAX_LISTED)
    return [TokenRow(*row) for row in connection.execute(newest)]


def is_revoked(connection: Connection, token_id: str) -> bool:
    """Whether a token was revoked, here or in another process."""
    return connection.scalar(_REVOKED, {"id": token_id}) is not None


def revoked_since(connection: Connection, since_ms: int) -> list[str]:
    """The ids of those revoked from some time on."""
    return list(connection.scalars(_REVOKED_SINCE, {"since_ms": since_ms}))
