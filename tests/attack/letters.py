"""What is posted and what must come back: the words of an attack.

What must come back is written down here and in the kinds from the public contract alone; nothing of
it is computed by the gateway's own checks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.attack.scene import Scene
    from tests.attack.victims import Victim

Proof = dict[str, Any]


@dataclass(frozen=True)
class Letter:
    """One request as it is posted. `card` is the one that a proof is truly by, `counter` its tap.

    `sender` is the terminal that the header names; None for an app, whose token is `bearer`.
    """

    body: bytes
    sender: str | None
    signature: str = ""
    bearer: str = ""
    card: Victim | None = None
    counter: int | None = None

    @property
    def fields(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded


@dataclass(frozen=True)
class Expected:
    """`is_verdict`: signed and stored. `is_again`: byte for byte what the same letter got first."""

    status: int
    code: str | None = None
    is_verdict: bool = True
    is_again: bool = False

    @property
    def charges(self) -> bool:
        """Whether this letter, and no other, moves money."""
        return self.status == 200 and not self.is_again

    @property
    def uses_up_the_tap(self) -> bool:
        """A tap that proved itself cannot be used again, even where the payment is declined."""
        return self.charges or self.code in AFTER_THE_PROOF


AFTER_THE_PROOF: Final = frozenset(
    {
        "terminal_frozen",
        "terminal_revoked",
        "invalid_merchant",
        "charge_unknown",
        "charge_cancelled",
        "charge_expired",
        "charge_closed",
        "charge_mismatch",
        "card_frozen",
        "card_expired",
        "currency_unsupported",
        "single_limit",
        "daily_limit",
        "high_fraud_risk",
        "insufficient_balance",
    }
)
"""Reasons that a stranger to the card is never told: its proof held."""

APPROVED: Final = Expected(200)
AGAIN: Final = Expected(0, is_again=True)


def declined(code: str) -> Expected:
    """A signed, final "not charged"."""
    return Expected(400, code)


def refused(status: int, code: str) -> Expected:
    """An error that says nothing about money and leaves no trace."""
    return Expected(status, code, is_verdict=False)


Step = tuple[Letter, Expected]
Steps = Iterator[Step]


@dataclass(frozen=True)
class Kind:
    """One way to cheat. `card` is the sort of card that it is played with; `by_app`: over HTTP
    alone, where tokens are looked at."""

    name: str
    card: str
    play: Callable[[Scene], Steps]
    by_app: bool = False


@dataclass(frozen=True)
class Told:
    """What came back."""

    status: int
    body: bytes = b""
    signature: str | None = None
    code: str | None = None
