"""Who is connected to this gateway, and on which sockets. Pure: closes none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from taprail_gateway.push_auth import Listener


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is connected to this gateway, in numbers and names."""

    connections: int
    users: list[str]


class Present:
    """Sockets that have said who they are."""

    def __init__(self) -> None:
        self._who: dict[str, Listener] = {}
        self._of: dict[str, dict[str, None]] = {}  # whose sockets, the oldest first

    def add(self, sid: str, who: Listener) -> list[str]:
        """Note a socket; gives all sockets of the same one, the oldest first."""
        self._who[sid] = who
        for name in who.shut_out_as:
            self._of.setdefault(name, {})[sid] = None
        return list(self._of[who.room])

    def remove(self, sid: str) -> None:
        """The socket is gone."""
        who = self._who.pop(sid, None)
        for name in () if who is None else who.shut_out_as:
            del self._of[name][sid]
            if not self._of[name]:
                del self._of[name]

    def get(self, sid: str) -> Listener | None:
        """Who is at a socket; None when nobody is (any more)."""
        return self._who.get(sid)

    def of(self, whose: str) -> list[str]:
        """The sockets of a terminal, a user or a token (`Listener.shut_out_as`)."""
        return list(self._of.get(whose, ()))

    def where(self, holds: Callable[[Listener], bool]) -> list[str]:
        """The sockets of all for whom something holds."""
        return [sid for sid, who in self._who.items() if holds(who)]

    def terminals(self) -> set[str]:
        """The terminals that are connected."""
        return {each.terminal_id for each in self._who.values() if each.terminal_id}

    def now(self) -> Presence:
        """Who is connected now."""
        users = {each.user.id for each in self._who.values() if each.user is not None}
        return Presence(len(self._who), sorted(users))
