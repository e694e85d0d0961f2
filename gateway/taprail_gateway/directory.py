"""Who may speak to the gateway: terminals' public keys and users' roles, cached.

Only what never changes is cached, so that authenticating costs no read: a terminal's key belongs to
its id for life, and so does a user's role. Whether a terminal was revoked or a card frozen is
decided in the commit that accepts a payment. Somebody unknown is looked up every time: whoever was
added a moment ago is known at the next tap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from nacl.signing import VerifyKey
from sqlalchemy import bindparam, select

from taprail_common.signing import parse_public_key
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger

_CACHED: Final = 10_000
"""Entries of each kind; well under 10 MB, and more terminals than one gateway serves."""

_KEY: Final = select(schema.terminals.c.public_key).where(
    schema.terminals.c.id == bindparam("terminal_id")
)
_ROLE: Final = select(schema.users.c.role).where(schema.users.c.id == bindparam("user_id"))

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class User:
    """Whom a token names."""

    id: str
    role: str

    @property
    def is_operator(self) -> bool:
        return self.role == "operator"


class Directory:
    """Looks up terminals and users; safe for use by one event loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._keys: _Bounded[VerifyKey] = _Bounded()
        self._users: _Bounded[User] = _Bounded()

    async def terminal_key(self, terminal_id: str) -> VerifyKey | None:
        """The key that this terminal signs with, revoked or not; None for no such terminal."""
        key = self._keys.get(terminal_id)
        if key is not None:
            return key
        text = await self._ledger.read(
            lambda connection: connection.scalar(_KEY, {"terminal_id": terminal_id})
        )
        return None if text is None else self._keys.put(terminal_id, parse_public_key(text))

    async def user(self, user_id: str) -> User | None:
        """A user with their role; None for no such user."""
        user = self._users.get(user_id)
        if user is not None:
            return user
        role = await self._ledger.read(
            lambda connection: connection.scalar(_ROLE, {"user_id": user_id})
        )
        return None if role is None else self._users.put(user_id, User(user_id, role))


class _Bounded(Generic[V]):
    """A dictionary that forgets its oldest entry when it is full."""

    def __init__(self) -> None:
        self._entries: dict[str, V] = {}

    def get(self, name: str) -> V | None:
        return self._entries.get(name)

    def put(self, name: str, value: V) -> V:
        if len(self._entries) >= _CACHED:
            del self._entries[next(iter(self._entries))]
        self._entries[name] = value
        return value
