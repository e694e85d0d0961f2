"""The PN532 on a serial line, through nfcpy's driver for the chip.

Answers for turning nfcpy's calls, and its many ways to fail, into the primitives of `base.Driver`.
Chip commands, framing, CRCs and ISO-DEP blocks are nfcpy's. Finding a card is done by chip command
instead of `sense()`, because that one cannot tell an empty field from a disturbed one, and polls
from the host what the chip can wait for by itself.
Sources: NXP UM0701-02 "PN532 User Manual" (clauses of chip commands), ISO/IEC 14443-4:2018.
"""

from __future__ import annotations

import errno
import logging
import math
import re
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import nfc
import nfc.clf.pn53x
import nfc.clf.pn532
import nfc.clf.transport
import nfc.tag.tt4
import serial

from taprail_common.errors import OperatorError, PartError
from taprail_terminal.readers.base import CardGarbledError, CardSilentError, Driver, FoundCard

PART: Final = "reader"

LISTEN_S: Final = 0.25
"""How long the chip looks for a card before the host takes a turn to disarm it."""
LOOK_S: Final = 0.25
MAX_EXCHANGE_S: Final = 0.8
"""One frame and its answer. A card may claim up to 4.9 s (FWI 14), a customer will not wait so."""
PRESENCE_S: Final = 0.1
RATS_TIMEOUT_S: Final = 0.03

# UM0701-02 clause 7.3.5 InListPassiveTarget: one target, 106 kbps type A, any UID.
_IN_LIST: Final = 0x4A
_ONE_TYPE_A: Final = b"\x01\x00"
# Clause 7.3.1 RFConfiguration item 5, MaxRetries: the last byte is MxRtyPassiveActivation.
_MAX_RETRIES: Final = 0x05
_ONCE: Final = b"\x01\x00\x01"
_UNTIL_ABORTED: Final = b"\x01\x00\xff"
# The FIFO still holds the REQA (ISO/IEC 14443-3 clause 6.4.1) when nothing at all has answered it.
_REQA: Final = 0x26

_SAK_ISO_DEP: Final = 0x20  # ISO/IEC 14443-3 table 9
_HLTA: Final = b"\x50\x00"  # ISO/IEC 14443-3 clause 6.4.3: no answer is the answer
_HLTA_TIMEOUT_S: Final = 0.002  # a card has 1 ms to object
_RATS_FSD_256: Final = b"\xe0\x80"  # ISO/IEC 14443-4 clause 5.1: FSDI 8, CID 0
_R_NAK: Final = 0xB2  # clause 7.1.1.3: asks an ISO-DEP card to repeat or acknowledge
# Clause 5.2: which frame size FSCI 0 to 8 stands for, and the defaults where the ATS says nothing.
_FRAME_BYTES: Final = (16, 24, 32, 40, 48, 64, 96, 128, 256)
_DEFAULT_FSCI, _DEFAULT_FWI, _MAX_FWI = 2, 4, 14
_FWT_UNIT_S: Final = 4096 / 13.56e6

# A process that died left the chip at the speed that nfcpy had chosen: the fastest the line takes.
_LEFT_BEHIND_BAUD: Final = (921600, 460800, 230400)
_WAKE_UP: Final = bytes(10)
_ACK: Final = bytes.fromhex("0000FF00FF00")
_SET_115200: Final = bytes.fromhex("0000FF03FDD410041800")  # clause 7.2.7 SetSerialBaudRate
_ANSWER_BYTES: Final = 15

# nfcpy hands the path to a shell, so nothing that a shell would read differently.
_PORT: Final = re.compile(r"/[A-Za-z0-9/._:+-]{1,200}")

# How nfcpy says that the line is there and nobody answers on it: in work, and at opening.
_SILENT: Final = frozenset({errno.EIO, errno.ETIMEDOUT, errno.ENODEV})

# How nfcpy fails when the line is dead or noisy: it indexes into short frames and asserts.
_FAULTS: Final = (
    OSError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
    termios.error,
    nfc.clf.pn53x.Chipset.Error,
)


class _Frontend(nfc.ContactlessFrontend):  # type: ignore[misc]  # nfcpy ships no types
    """Ends a dialogue when its time is used up: a card could ask for more time for ever."""

    deadline_s = math.inf

    def exchange(self, send_data: bytes, timeout: float) -> bytearray:
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0:
            raise nfc.clf.TimeoutError("the time for this card is used up")
        answer: bytearray = super().exchange(send_data, min(timeout, MAX_EXCHANGE_S, left_s))
        return answer


class Pn532Driver(Driver):
    """A PN532 at a serial port given by its path, for instance /dev/serial0."""

    def __init__(self, port: str) -> None:
        self._port = port
        self._frontend: Any = None
        self._retries = b""
        self._dep: Any = None
        # To nfcpy every card that leaves early is an error worth a line.
        logging.getLogger("nfc").setLevel(logging.CRITICAL)

    def check(self) -> None:
        if _PORT.fullmatch(self._port) is None:
            raise OperatorError(
                f"{self._port!r} cannot be a serial port", fix="set [reader] port, like /dev/ttyS0"
            )
        if not Path(self._port).exists():
            raise OperatorError(
                f"no card reader at {self._port}", fix="plug it in, or correct [reader] port"
            )

    def open(self) -> str:
        try:
            device = self._connect()
        except PartError:
            self._recover_speed()
            device = self._connect()
        self._retries = b""
        # All by hand, because nfcpy's own search takes only names that are listed in /dev.
        self._frontend = _Frontend()
        self._frontend.device = device
        device._path = self._port
        return str(device.chipset_name)

    def close(self) -> None:
        frontend, self._frontend = self._frontend, None
        if frontend is not None:
            with suppress(*_FAULTS):  # a reader that was pulled out cannot be closed politely
                frontend.close()

    def ping(self) -> None:
        with _reader_faults():
            self._chipset.get_firmware_version()

    def soft_reset(self) -> None:
        with _reader_faults():
            transport = self._chipset.transport
            transport.write(bytearray(_ACK))  # ends what the chip is at (UM0701-02 clause 6.2.1.3)
            transport.tty.reset_input_buffer()
            self._retries = b""
            self._chipset.sam_configuration("normal")

    def wait_for_card(self) -> FoundCard | None:
        with _reader_faults():
            return self._list_card(_UNTIL_ABORTED, LISTEN_S)

    def look_again(self) -> FoundCard | None:
        with _reader_faults():
            self._frontend.device.mute()
            card = self._list_card(_ONCE, LOOK_S)
            if card is None and self._chipset.read_register("CIU_FIFOData") != _REQA:
                raise CardGarbledError("something answered, but not like one card")
            return card

    def start_session(self, *, budget_s: float) -> None:
        self._frontend.deadline_s = time.monotonic() + budget_s
        with _card_faults():
            ats = bytes(self._frontend.exchange(_RATS_FSD_256, RATS_TIMEOUT_S))
            frame_bytes, wait_s = _parse_ats(ats)
            self._dep = nfc.tag.tt4.IsoDepInitiator(self._frontend, frame_bytes, wait_s)

    def exchange(self, apdu: bytes) -> bytes:
        with _card_faults():
            return bytes(self._dep.exchange(bytearray(apdu)))

    def still_answers(self) -> bool:
        self._frontend.deadline_s = time.monotonic() + PRESENCE_S
        try:
            with _card_faults():
                self._frontend.exchange(bytes([_R_NAK | self._dep.pni]), PRESENCE_S)
        except CardSilentError:
            return False
        except CardGarbledError:
            return True
        return True

    def sees_another(self) -> bool:
        """A card in a dialogue does not know REQA (ISO/IEC 14443-4, multi-activation), nor does one
        that was halted: so whoever answers it is another one.

        The chip's own search for two would leave open which of them it talks to.
        """
        with _reader_faults():
            first = self._frontend.target
            if not first.sel_res[0] & _SAK_ISO_DEP:
                self._frontend.deadline_s = time.monotonic() + PRESENCE_S
                with suppress(nfc.clf.CommunicationError):
                    self._frontend.exchange(_HLTA, _HLTA_TIMEOUT_S)
            found = self._list_card(_ONCE, LOOK_S)
            # The same number: it had lost its power for a moment.
            return found is not None and found.uid != bytes(first.sdd_res)

    def rest(self) -> None:
        with _reader_faults():
            self._frontend.device.mute()

    @property
    def _chipset(self) -> Any:
        return self._frontend.device.chipset

    def _list_card(self, retries: bytes, timeout_s: float) -> FoundCard | None:
        if retries != self._retries:
            self._chipset.rf_configuration(_MAX_RETRIES, retries)
            self._retries = retries
        try:
            answer = self._chipset.command(_IN_LIST, bytearray(_ONE_TYPE_A), timeout=timeout_s)
        except OSError as exc:
            if exc.errno == errno.ETIMEDOUT:  # the chip took the command and found nobody
                return None
            raise
        if answer[0] == 0:
            return None
        sens_res, sel_res, uid_length = answer[2:4][::-1], answer[4:5], answer[5]
        uid = answer[6 : 6 + uid_length]
        self._frontend.target = nfc.clf.RemoteTarget(
            "106A", sens_res=sens_res, sel_res=sel_res, sdd_res=uid
        )
        return FoundCard(bytes(uid), iso_dep=bool(sel_res[0] & _SAK_ISO_DEP))

    def _connect(self) -> Any:
        transport: Any = None
        try:
            with _reader_faults():
                transport = nfc.clf.transport.TTY(self._port)
                device = nfc.clf.pn532.init(transport)
        except PartError:
            if transport is not None:
                with suppress(*_FAULTS):
                    transport.close()
            raise
        return device

    def _recover_speed(self) -> None:
        for baud in _LEFT_BEHIND_BAUD:
            with _reader_faults(), serial.Serial(self._port, baud, timeout=0.1) as line:
                line.write(_ACK + _WAKE_UP + _SET_115200)
                line.read(_ANSWER_BYTES)
                line.write(_ACK)  # the chip changes its speed when its answer is acknowledged
                line.flush()
                time.sleep(0.002)


def _parse_ats(ats: bytes) -> tuple[int, float]:
    """Frame size in bytes and frame waiting time in seconds (ISO/IEC 14443-4 clause 5.2).

    nfcpy expects all interface bytes; the standard lets a card leave out any, even all of them.
    """
    if not ats or ats[0] != len(ats):
        raise CardGarbledError("an answer to select of the wrong length")
    format_byte = ats[1] if len(ats) > 1 else _DEFAULT_FSCI
    at = 2 + bool(format_byte & 0x10)  # TA(1) comes first
    has_tb = bool(format_byte & 0x20)
    if has_tb and len(ats) <= at:
        raise CardGarbledError("an answer to select that ends too early")
    fsci = min(format_byte & 0x0F, len(_FRAME_BYTES) - 1)
    fwi = min(ats[at] >> 4, _MAX_FWI) if has_tb else _DEFAULT_FWI
    return _FRAME_BYTES[fsci], _FWT_UNIT_S * 2**fwi


@contextmanager
def _reader_faults() -> Iterator[None]:
    """Whatever fails here is the reader's or the line's fault."""
    try:
        yield
    except _FAULTS as exc:
        raise _part_error(exc) from exc


@contextmanager
def _card_faults() -> Iterator[None]:
    """Tell a silent card from a garbled one, and both from a dead reader."""
    try:
        yield
    except nfc.clf.TimeoutError as exc:
        raise CardSilentError("the card does not answer") from exc
    except nfc.tag.tt4.Type4TagCommandError as exc:
        if exc.errno == nfc.tag.TIMEOUT_ERROR:
            raise CardSilentError("the card does not answer") from exc
        raise CardGarbledError("the card's blocks are out of order") from exc
    except nfc.clf.CommunicationError as exc:
        raise CardGarbledError("the card's answer is damaged") from exc
    except (IndexError, struct.error) as exc:
        raise CardGarbledError("the card's answer is cut short") from exc
    except _FAULTS as exc:
        raise _part_error(exc) from exc


def _part_error(exc: BaseException) -> PartError:
    if isinstance(exc, OSError) and exc.errno in _SILENT:
        return PartError(PART, "its chip does not answer", fix="take its power for a moment")
    return PartError(
        PART, f"does not answer as it should ({type(exc).__name__})", fix="check its cable"
    )
