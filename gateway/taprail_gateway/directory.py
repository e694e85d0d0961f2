"""Who may speak to the gateway: terminals' public keys and users' roles, cached.

A terminal's key changes seldom, and is remembered for seconds. Whether a terminal was revoked, or a
card or its owner frozen, is decided in the commit that accepts a payment. A user or a token is
remembered for an instant only: whoever was frozen, or had it revoked, here or in another process,
is shut out of all else that soon. Somebody unknown is looked up every time: whoever was added a
moment ago is known at the next tap. So nothing here has to be told of a change.

The rows of cards, merchants, terminals and balances are not cached on purpose. A commit reads them
by a fixed number of statements for all its requests together: a twentieth of what accepting costs,
of which a cache would have to give most back, to learn in every commit what others have changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sqlalchemy import bindparam, select

from taprail_common.errors import SignatureError
from taprail_common.signing import Domain, verify
from taprail_gateway import terminal_keys
from taprail_gateway.ledger import issued_tokens, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.remembered import CacheUse, Remembered
from taprail_gateway.terminal_keys import TerminalKeys
from taprail_gateway.tokens import Claims, Scope

_CACHED: Final = 10_000
"""Entries of each kind; well under 10 MB, and more terminals than one gateway serves."""

_u: Final = schema.users.c
_USER: Final = select(_u.role, _u.frozen_at_ms).where(_u.id == bindparam("user_id"))

KEY_GOOD_FOR_S: Final = 2.0
"""How long a terminal's key is remembered: one read in two seconds for a busy terminal, and as long
as that until the key of a device that was replaced is nobody's any more."""

USER_GOOD_FOR_S: Final = 0.5
"""How long a user is remembered: two reads a second for one who asks without end, and as long as
that until somebody frozen is shut out. A token likewise."""

SCOPES_OF_ROLE: Final[Mapping[str, frozenset[Scope]]] = {
    "customer": frozenset({Scope.CUSTOMER}),
    "merchant": frozenset({Scope.CUSTOMER, Scope.MERCHANT}),
    "operator": frozenset(Scope),
}
"""As what somebody may act at most; a token may allow less."""


@dataclass(frozen=True, slots=True)
class User:
    """Whom a token names, and as what they act with it."""

    id: str
    role: str
    scopes: frozenset[Scope]
    is_frozen: bool = False

    @property
    def is_customer(self) -> bool:
        return Scope.CUSTOMER in self.scopes

    @property
    def is_merchant(self) -> bool:
        return Scope.MERCHANT in self.scopes

    @property
    def is_operator(self) -> bool:
        return Scope.OPERATOR in self.scopes


class Directory:
    """Looks up terminals and users; safe for use by one event loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._clock = ledger.clock
        self._keys: Remembered[tuple[TerminalKeys, float]] = Remembered(_CACHED)
        self._users: Remembered[tuple[User, float]] = Remembered(_CACHED)
        self._revoked: Remembered[tuple[bool, float]] = Remembered(_CACHED)

    @property
    def use(self) -> dict[str, CacheUse]:
        """How often the caches helped, by what is in them."""
        return {"terminals": self._keys.use, "users": self._users.use}

    async def has_signed(
        self, terminal_id: str, domain: Domain, signed: bytes, signature: str
    ) -> bool:
        """True when this terminal, revoked or not, signed this; False when there is no such
        terminal. SignatureError otherwise. Its next key is its only one from its first use on."""
        keys = await self._terminal_keys(terminal_id)
        if keys is None:
            return False
        try:
            verify(keys.current, domain, signed, signature)
        except SignatureError:
            self.forget_terminal(terminal_id)
            await self._used_another(terminal_id, domain, signed, signature)
        return True

    async def _used_another(
        self, terminal_id: str, domain: Domain, signed: bytes, signature: str
    ) -> None:
        """It is not by the key that we remember: by one that was announced or changed since?"""
        keys = await self._terminal_keys(terminal_id)
        if keys is None:
            raise SignatureError("the terminal is gone")
        try:
            verify(keys.current, domain, signed, signature)
        except SignatureError:
            if keys.upcoming is None:
                raise
            verify(keys.upcoming, domain, signed, signature)
        else:
            return
        promote = partial(
            terminal_keys.promote,
            terminal_id=terminal_id,
            key=keys.upcoming,
            now_ms=self._clock.now_ms(),
        )
        await self._ledger.write(promote)
        self.forget_terminal(terminal_id)

    async def _terminal_keys(self, terminal_id: str) -> TerminalKeys | None:
        now_s = self._clock.monotonic_s()
        found = self._keys.get(terminal_id)
        if found is not None and now_s - found[1] < KEY_GOOD_FOR_S:
            return found[0]
        keys = await self._ledger.read(partial(terminal_keys.keys_of, terminal_id=terminal_id))
        return None if keys is None else self._keys.put(terminal_id, (keys, now_s))[0]

    def forget_terminal(self, terminal_id: str) -> None:
        """Look its key up at its next request: it has another one."""
        self._keys.drop(terminal_id)

    async def bearer(self, claims: Claims) -> User | None:
        """Whom a token names, with what both it and the role allow; None for no such user.

        SignatureError when the token was revoked.
        """
        if claims.token_id is not None and await self._is_revoked(claims.token_id):
            raise SignatureError("the token was revoked", code="token_revoked")
        user = await self.user(claims.user_id)
        return None if user is None else replace(user, scopes=user.scopes & claims.scopes)

    async def _is_revoked(self, token_id: str) -> bool:
        now_s = self._clock.monotonic_s()
        found = self._revoked.get(token_id)
        if found is not None and now_s - found[1] < USER_GOOD_FOR_S:
            return found[0]
        look = partial(issued_tokens.is_revoked, token_id=token_id)
        return self._revoked.put(token_id, (await self._ledger.read(look), now_s))[0]

    async def user(self, user_id: str) -> User | None:
        """A user with all that their role allows, frozen or not; None for no such user."""
        now_s = self._clock.monotonic_s()
        found = self._users.get(user_id)
        if found is not None and now_s - found[1] < USER_GOOD_FOR_S:
            return found[0]
        row = await self._ledger.read(
            lambda connection: connection.execute(_USER, {"user_id": user_id}).one_or_none()
        )
        if row is None:
            return None
        role, frozen_at_ms = row
        user = User(user_id, role, SCOPES_OF_ROLE[role], frozen_at_ms is not None)
        return self._users.put(user_id, (user, now_s))[0]

    def forget(self, user_id: str) -> None:
        """Look a user up at the next request: something of them was changed here."""
        self._users.drop(user_id)

    def look_again(self, whose: str) -> None:
        """The same for a user or a token by how sockets name them (`user:…`, `token:…`)."""
        kind, _, name = whose.partition(":")
        if kind == "user":
            self.forget(name)
        elif kind == "token":
            self._revoked.drop(name)
