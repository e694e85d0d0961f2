"""Who listens where, and what each was told already: so that nobody hears anything twice.

Whoever enters a room is first told how things stand, and only a read of the ledger can say that.
What happens during the read is held for them, and what the read has shown is not told again. Pure
and without awaits: between two steps of it nothing else happens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

MAX_HELD: Final = 100
"""Messages that wait for one read, of a few milliseconds; beyond it something is wrong."""


@dataclass(frozen=True, slots=True)
class Message:
    """An event with its data, and the number of the step that it tells of."""

    seq: int
    event: str
    data: dict[str, object]


@dataclass(slots=True)
class _Member:
    """`held` is None for those who are told at once; `told` are steps that the pump has yet to
    bring, and that this member knows of. More was to be held than may be: it is `behind`."""

    held: list[Message] | None = field(default_factory=list)
    behind: bool = False
    told: set[int] = field(default_factory=set)


class Rooms:
    """Rooms by name, with their members by socket."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[str, _Member]] = {}
        self._of: dict[str, set[str]] = {}

    def count(self, sid: str, kind: str = "") -> int:
        """How many rooms of a kind a socket is in."""
        return sum(room.startswith(kind) for room in self._of.get(sid, ()))

    def is_heard(self, room: str) -> bool:
        """Whether anybody is in a room."""
        return room in self._rooms

    def enter(self, sid: str, room: str) -> None:
        """Begin to hold for this socket what happens in a room; again, if it was in there."""
        self._rooms.setdefault(room, {})[sid] = _Member()
        self._of.setdefault(sid, set()).add(room)

    def begin(
        self, sid: str, room: str, known: Iterable[int], to_come: Iterable[int]
    ) -> list[Message] | None:
        """From now on tell it at once; gives what was held and is not known.

        `known` are the steps that it was told of, `to_come` those of them that the pump will bring.
        None: it has left meanwhile, or more has happened than is held for anybody.
        """
        member = self._rooms.get(room, {}).get(sid)
        if member is None or member.held is None or member.behind:
            return None
        held, member.held = member.held, None
        seen = set(known)
        member.told = set(to_come) - {message.seq for message in held}
        return [message for message in held if message.seq not in seen]

    def knows(self, sid: str, room: str, to_come: Iterable[int]) -> None:
        """A member was told of these steps otherwise, which the pump will bring."""
        member = self._rooms.get(room, {}).get(sid)
        if member is not None:
            member.told.update(to_come)

    def leave(self, sid: str, room: str) -> None:
        """Tell this socket no more of a room."""
        members = self._rooms.get(room)
        if members is not None and members.pop(sid, None) is not None and not members:
            del self._rooms[room]
        mine = self._of.get(sid)
        if mine is not None:
            mine.discard(room)
            if not mine:
                del self._of[sid]

    def forget(self, sid: str) -> None:
        """The socket is gone."""
        for room in list(self._of.get(sid, ())):
            self.leave(sid, room)

    def tell(self, room: str, messages: list[Message]) -> list[str]:
        """Who is to be sent these now; for those who wait they are held."""
        listening = []
        for sid, member in self._rooms.get(room, {}).items():
            if member.held is not None:
                member.behind = member.behind or len(member.held) >= MAX_HELD
                if not member.behind:
                    member.held += messages
            elif messages[0].seq in member.told:
                member.told.discard(messages[0].seq)
            else:
                listening.append(sid)
        return listening
