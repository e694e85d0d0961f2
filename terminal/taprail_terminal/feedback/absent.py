"""A part of the front that did not answer when it was opened, in a place where the rest goes on.

In safe mode a technician wants to be told which part it is: so it stands there as one that fails at
whatever it is asked to do, and the self-test says why. At a normal start nothing is absent: a part
that the configuration names and that does not answer stops the program.
"""

from __future__ import annotations

from typing import Final

from taprail_common.errors import OperatorError, PartError

_FIX: Final = "check its wires, and what the configuration says of it"


class AbsentPart:
    """Drives nothing, and says why."""

    def __init__(self, name: str, why: OperatorError) -> None:
        self.name = name
        self._why = why

    def play(self, _order: object, _elapsed_ms: int) -> int | None:
        """Raises PartError."""
        why = self._why.message.removeprefix(f"{self.name}: ")
        raise PartError(self.name, why, fix=_FIX)

    def close(self) -> None:
        """There is nothing to give back."""
