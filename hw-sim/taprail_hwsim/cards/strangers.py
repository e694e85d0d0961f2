"""Cards that no terminal of ours takes, and a card that turns into another one."""

from __future__ import annotations

from typing import Final

from taprail_hwsim.cards.base import Card, CardAnswer
from taprail_hwsim.cards.iso_dep import IsoDepCard
from taprail_hwsim.cards.type4 import BY_NAME, NOT_FOUND, OK, SELECT, UNKNOWN_INS, Command

# EMV Contactless Book B section 3.3.1: the directory of contactless applications.
BANK_DIRECTORY: Final = b"2PAY.SYS.DDF01"
# Section 3.3.2, table 3-2: its FCI, with one application of the scheme that A0000000031010 names.
_DIRECTORY_FCI: Final = bytes.fromhex(
    "6F20840E325041592E5359532E4444463031A50EBF0C0B61094F07A0000000031010"
)
ATQA: Final = 0x0004
SAK: Final = 0x20
ATS: Final = bytes.fromhex("067880810080")


class BankCard(IsoDepCard):
    """A contactless EMV card, as far as its directory; `names` are the applications asked for."""

    kind = "bank"

    def __init__(self, uid: bytes) -> None:
        super().__init__(uid, atqa=ATQA, sak=SAK, ats=ATS)
        self.names: list[bytes] = []

    def apdu(self, command: bytes) -> tuple[str, bytes]:
        parsed = Command.parse(command)
        if parsed is None or parsed.ins != SELECT or parsed.p1 != BY_NAME:
            return "unknown", UNKNOWN_INS.to_bytes(2, "big")
        self.names.append(parsed.data)
        if parsed.data == BANK_DIRECTORY:
            return "SELECT", _DIRECTORY_FCI + OK.to_bytes(2, "big")
        return "SELECT", NOT_FOUND.to_bytes(2, "big")

    def forget_session(self) -> None:
        """Nothing of it is remembered between commands."""


class Disguise:
    """What answers is one of several cards; which one, the subclass says by `_now`."""

    kind = "disguise"
    _now: Card

    @property
    def uid(self) -> bytes:
        return self._now.uid

    @property
    def atqa(self) -> int:
        return self._now.atqa

    @property
    def sak(self) -> int:
        return self._now.sak

    @property
    def ats(self) -> bytes | None:
        return self._now.ats


class SwappedCard(Disguise):
    """One card that turns into another after so many APDUs: the first falls silent, and what
    answers the next activation is the second."""

    kind = "swapped"

    def __init__(self, first: Card, second: Card, after_apdus: int) -> None:
        self._now, self._next = first, second
        self._left = after_apdus

    def power_lost(self) -> None:
        self._now.power_lost()
        if self._left <= 0:
            self._now = self._next

    def activate(self) -> bool:
        return self._now.activate()

    def receive(self, frame: bytes) -> CardAnswer | None:
        if self._left <= 0 and self._now is not self._next:
            return None
        answer = self._now.receive(frame)
        if answer is not None and answer.apdu is not None:
            self._left -= 1
        return answer
