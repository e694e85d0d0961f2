"""Contactless readers that speak PC/SC (an ACR122U, for instance), through pcscd and pyscard.

Answers for turning the calls of PC/SC, and its many codes, into the primitives of `base.Driver`.
Finding a card, its field and ISO-DEP are the reader's own; this side sees a card come into a slot.
Only the thin layer `smartcard.scard` is used: it has a time-out where there is one, and lets other
threads run while it waits. What has none (an exchange whose card keeps asking for time) is noticed
by the supervisor.
Sources: PC/SC part 3 rev. 2.01.09 (contactless cards); pcsc-lite's winscard.h and API page.
"""

from __future__ import annotations

import time
from typing import Any, Final

from smartcard import scard

from taprail_common.errors import OperatorError, PartError
from taprail_terminal.readers.base import CardGarbledError, CardSilentError, Driver, FoundCard

PART: Final = "reader"

LISTEN_S: Final = 0.25
"""How long pcscd waits for a card before the host takes a turn to disarm the reader."""
LOOK_S: Final = 0.6
"""pcscd looks into its slots every 0.4 s (PCSCLITE_STATUS_POLL_RATE): after that it knows."""
_RETRY_S: Final = 0.02
_MAX_NAME: Final = 127  # MAX_READERNAME of pcsc-lite, without its end

_GET_UID: Final = [0xFF, 0xCA, 0x00, 0x00, 0x00]  # PC/SC part 3 section 3.2.2.1.3
_OK: Final = [0x90, 0x00]
# Section 3.1.3.2.3.2: in an ATR these historical bytes say that it is a card without ISO-DEP.
_STORAGE_CARD: Final = bytes.fromhex("804F0CA000000306")

_GET_FEATURES: Final = scard.SCARD_CTL_CODE(3400)  # CM_IOCTL_GET_FEATURE_REQUEST, PC/SC part 10

_PROTOCOLS: Final = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1

# What the codes mean. A card that left, or that the reader gave up, is silent; what is in neither
# set is the reader's fault, or that of pcscd.
_CARD_AWAY: Final = frozenset(
    {
        scard.SCARD_E_NO_SMARTCARD,
        scard.SCARD_W_REMOVED_CARD,
        scard.SCARD_W_UNPOWERED_CARD,
        scard.SCARD_W_UNRESPONSIVE_CARD,
        scard.SCARD_E_NOT_TRANSACTED,
        scard.SCARD_E_TIMEOUT,
    }
)
_CARD_GARBLED: Final = frozenset(
    {
        scard.SCARD_W_RESET_CARD,
        scard.SCARD_E_PROTO_MISMATCH,
        scard.SCARD_E_COMM_DATA_LOST,
        scard.SCARD_E_INSUFFICIENT_BUFFER,
    }
)
_NOT_THERE: Final = (
    scard.SCARD_STATE_UNKNOWN | scard.SCARD_STATE_UNAVAILABLE | scard.SCARD_STATE_IGNORE
)


class PcscDriver(Driver):
    """A reader by the name that pcscd gives it, or the beginning of that name."""

    def __init__(self, name: str) -> None:
        self._wanted = name
        self._context: Any = None
        self._reader = ""
        self._card: Any = None
        self._protocol = 0
        self._deadline_s = 0.0

    def check(self) -> None:
        if not self._wanted.strip() or len(self._wanted) > _MAX_NAME:
            raise OperatorError(
                f"{self._wanted!r} cannot be a reader's name",
                fix="set [reader] port to the name that `pcsc_scan` shows",
            )
        try:
            self._connect()
        except PartError as exc:
            raise OperatorError(exc.message, fix=exc.fix) from exc
        finally:
            self.close()

    def open(self) -> str:
        self._connect()
        self.ping()
        return self._reader

    def close(self) -> None:
        context, self._context = self._context, None
        self._drop_card()
        if context is not None:
            scard.SCardReleaseContext(context)

    def ping(self) -> None:
        # pcscd answers by itself what it knows of a slot. Only what it has to ask the reader's
        # driver for shows that one which hangs; no card is touched, and no answer is needed.
        code, handle, _ = scard.SCardConnect(
            self._context, self._reader, scard.SCARD_SHARE_DIRECT, _PROTOCOLS
        )
        _reader_must(code)
        scard.SCardControl(handle, _GET_FEATURES, [])
        scard.SCardDisconnect(handle, scard.SCARD_LEAVE_CARD)
        self._state()

    def wait_for_card(self) -> FoundCard | None:
        self._drop_card()
        self.ping()
        state = self._state()
        if not state & scard.SCARD_STATE_PRESENT:
            state = self._state(state, LISTEN_S)
        if not state & scard.SCARD_STATE_PRESENT:
            return None
        card = self._activate()
        if card is None:  # it makes no sense: wait until something changes, not for ever
            self._state(state, LISTEN_S)
        return card

    def look_again(self) -> FoundCard | None:
        self._drop_card()
        until_s = time.monotonic() + LOOK_S
        while time.monotonic() < until_s:
            state = self._state()
            if not state & scard.SCARD_STATE_PRESENT:
                return None
            card = self._activate()
            if card is not None:
                return card
            # Either pcscd has not noticed yet that the card left, or the card is in trouble.
            self._state(state, _RETRY_S)
        raise CardGarbledError("something is there, but it does not answer like a card")

    def start_session(self, *, budget_s: float) -> None:
        self._deadline_s = time.monotonic() + budget_s
        if self._card is None:
            raise CardSilentError("the card does not answer")

    def exchange(self, apdu: bytes) -> bytes:
        if time.monotonic() > self._deadline_s:
            raise CardSilentError("the time for this card is used up")
        answer = self._transmit(list(apdu))
        if len(answer) < len(_OK):  # no card ends without a status word: the reader gave it up
            raise CardSilentError("the card does not answer")
        return bytes(answer)

    def still_answers(self) -> bool:
        # pcscd tells a handle that its card left, even when another lies there by now.
        code, *_ = scard.SCardStatus(self._card)
        return bool(code == scard.SCARD_S_SUCCESS)

    def rest(self) -> None:
        self._drop_card()

    def _connect(self) -> None:
        self.close()
        code, self._context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
        if code != scard.SCARD_S_SUCCESS:
            self._context = None
            raise PartError(PART, f"pcscd does not answer ({_words(code)})", fix="start pcscd")
        self._reader = self._find()

    def _find(self) -> str:
        code, names = scard.SCardListReaders(self._context, [])
        if code != scard.SCARD_E_NO_READERS_AVAILABLE:
            _reader_must(code)
        found = [name for name in names or [] if name.startswith(self._wanted)]
        if self._wanted in found:
            return self._wanted
        if len(found) == 1:
            return str(found[0])
        if found:
            raise PartError(
                PART, f"{self._wanted!r} names {len(found)} readers", fix="give the whole name"
            )
        there = ", ".join(map(repr, names or [])) or "none"
        raise PartError(
            PART, f"pcscd has no reader {self._wanted!r}", fix=f"plug it in; there are: {there}"
        )

    def _state(self, known: int = scard.SCARD_STATE_UNAWARE, timeout_s: float = 0.0) -> int:
        """The slot's state as soon as it is another than the known one, or when time is up."""
        asked = [(self._reader, known)]
        code, states = scard.SCardGetStatusChange(self._context, int(timeout_s * 1000), asked)
        if code == scard.SCARD_E_TIMEOUT:
            return known
        _reader_must(code)
        state: int = states[0][1]
        if state & _NOT_THERE:
            raise PartError(PART, "is not there any more", fix="plug it in")
        return state & ~int(scard.SCARD_STATE_CHANGED)

    def _activate(self) -> FoundCard | None:
        """Take the card in the slot for ourselves; None when it does not answer."""
        code, card, self._protocol = scard.SCardConnect(
            self._context, self._reader, scard.SCARD_SHARE_EXCLUSIVE, _PROTOCOLS
        )
        if code in _CARD_AWAY or code in _CARD_GARBLED:
            return None
        if code == scard.SCARD_E_SHARING_VIOLATION:
            raise PartError(PART, "is used by another program", fix="stop that one")
        _reader_must(code)
        self._card = card
        try:
            answer = self._transmit(_GET_UID)
        except (CardSilentError, CardGarbledError):
            return None
        _, _, _, _, atr = scard.SCardStatus(card)
        if answer[-2:] != _OK or len(answer) == len(_OK):
            return None
        return FoundCard(bytes(answer[:-2]), iso_dep=_STORAGE_CARD not in bytes(atr or []))

    def _transmit(self, apdu: list[int]) -> list[int]:
        pci = scard.SCARD_PCI_T0
        if self._protocol == scard.SCARD_PROTOCOL_T1:
            pci = scard.SCARD_PCI_T1
        code, answer = scard.SCardTransmit(self._card, pci, apdu)
        if code in _CARD_AWAY:
            raise CardSilentError("the card does not answer")
        if code in _CARD_GARBLED:
            raise CardGarbledError(f"the card's answer is damaged ({_words(code)})")
        _reader_must(code)
        return list(answer)

    def _drop_card(self) -> None:
        """Let go of the card; without its power it begins anew."""
        card, self._card = self._card, None
        if card is not None:
            scard.SCardDisconnect(card, scard.SCARD_UNPOWER_CARD)


def _reader_must(code: int) -> None:
    if code != scard.SCARD_S_SUCCESS:
        raise PartError(PART, f"does not answer as it should ({_words(code)})", fix="see pcscd")


def _words(code: int) -> str:
    return str(scard.SCardGetErrorMessage(code)).strip().rstrip(".")
