"""An NFC Forum type 4 card's files: SELECT, READ BINARY, and a status word for everything else.

Answers for ISO/IEC 7816-4 command parsing and the file layout of NT4H2421Gx clause 8.2. What the
NDEF file holds at the moment of a read is the subclass's matter.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Final

from taprail_hwsim.cards.iso_dep import IsoDepCard

# NT4H2421Gx clauses 8.1 and 8.2: application name, file identifiers, short file identifiers.
NDEF_APPLICATION: Final = bytes.fromhex("D2760000850101")
CC_FILE: Final = 0xE103
NDEF_FILE: Final = 0xE104
PROPRIETARY_FILE: Final = 0xE105
SHORT_FILE_IDS: Final = {0x03: CC_FILE, 0x04: NDEF_FILE, 0x05: PROPRIETARY_FILE}
NDEF_FILE_BYTES: Final = 256

# Capability container as delivered (NT4H2421Gx clause 8.2.3.2): mapping 2.0, MLe 256, MLc 255, an
# NDEF file of 256 bytes that anyone may read; here nobody may write it (FFh) after personalisation.
CAPABILITY_CONTAINER: Final = bytes.fromhex(
    "001720010000FF" + "0406E104010000FF" + "0506E10500808283"
).ljust(32, b"\x00")

ATQA: Final = 0x0344  # NT4H2421Gx clause 8.1.1
SAK: Final = 0x20
# FSCI 7 (128 bytes), FWI 7 (38.7 ms), no NAD and no CID, historical byte 80h (ISO/IEC 14443-4 5.2).
ATS: Final = bytes.fromhex("067777710080")

# ISO/IEC 7816-4 tables 5 and 6.
OK: Final = 0x9000
END_OF_FILE: Final = 0x6282
WRONG_LENGTH: Final = 0x6700
SECURITY_STATUS: Final = 0x6982
CONDITIONS: Final = 0x6985
NO_CURRENT_FILE: Final = 0x6986
NOT_FOUND: Final = 0x6A82
WRONG_P1_P2: Final = 0x6A86
WRONG_OFFSET: Final = 0x6B00
UNKNOWN_INS: Final = 0x6D00
UNKNOWN_CLA: Final = 0x6E00
NATIVE_ILLEGAL_COMMAND: Final = 0x911C  # NT4H2421Gx table 22, for the native class 90h

ISO_CLASS: Final = 0x00
NATIVE_CLASS: Final = 0x90
SELECT: Final = 0xA4
READ_BINARY: Final = 0xB0
UPDATE_BINARY: Final = 0xD6
INS_NAMES: Final = {SELECT: "SELECT", READ_BINARY: "READ BINARY", UPDATE_BINARY: "UPDATE BINARY"}

BY_NAME: Final = 0x04
BY_FILE_ID: Final = (0x00, 0x02)
NO_FCI: Final = 0x0C
FIRST_WITH_FCI: Final = 0x00


@dataclass(frozen=True)
class Command:
    """A short command APDU; `le` is the number of bytes asked for, None when absent."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes
    le: int | None

    @classmethod
    def parse(cls, raw: bytes) -> Command | None:
        """Cases 1 to 4 of ISO/IEC 7816-4 clause 5.1, short lengths; None when lengths disagree."""
        if len(raw) < 4:
            return None
        cla, ins, p1, p2 = raw[:4]
        body = raw[4:]
        if len(body) <= 1:
            return cls(cla, ins, p1, p2, b"", (body[0] or 256) if body else None)
        lc, rest = body[0], body[1:]
        if lc == 0 or len(rest) not in (lc, lc + 1):
            return None
        le = (rest[lc] or 256) if len(rest) > lc else None
        return cls(cla, ins, p1, p2, rest[:lc], le)


class Type4Card(IsoDepCard):
    """A card with one NDEF application. Every command gets a status word, whatever it holds."""

    kind = "type4"

    def __init__(self, uid: bytes, *, wtx_per_apdu: int = 0) -> None:
        super().__init__(uid, atqa=ATQA, sak=SAK, ats=ATS, wtx_per_apdu=wtx_per_apdu)
        self._application_selected = False
        self._current_file: int | None = None

    @abstractmethod
    def ndef_file(self) -> bytes | None:
        """The NDEF file as this read shall see it (256 bytes); None when it may not be read now."""

    def forget_session(self) -> None:
        self._application_selected = False
        self._current_file = None

    def apdu(self, command: bytes) -> tuple[str, bytes]:
        parsed = Command.parse(command)
        if parsed is None:
            return "malformed", _status(WRONG_LENGTH)
        name = INS_NAMES.get(parsed.ins, f"INS {parsed.ins:02X}")
        if parsed.cla == NATIVE_CLASS:
            return self.native_command(parsed)
        if parsed.cla != ISO_CLASS:
            return name, _status(UNKNOWN_CLA)
        return name, self._iso_command(parsed)

    def native_command(self, command: Command) -> tuple[str, bytes]:
        """A command of class 90h: its name and the answer. Without keys there is none."""
        return f"INS {command.ins:02X}", _status(NATIVE_ILLEGAL_COMMAND)

    def _iso_command(self, command: Command) -> bytes:
        if command.ins == SELECT:
            return _status(self._select(command))
        if command.ins == READ_BINARY:
            return self._read_binary(command)
        return _status(SECURITY_STATUS if command.ins == UPDATE_BINARY else UNKNOWN_INS)

    def _select(self, command: Command) -> int:
        if command.p2 not in (FIRST_WITH_FCI, NO_FCI):
            return WRONG_P1_P2
        if command.p1 == BY_NAME:
            return self._select_application(command.data)
        if command.p1 in BY_FILE_ID:
            return self._select_file(command.data)
        return WRONG_P1_P2

    def _select_application(self, name: bytes) -> int:
        if name != NDEF_APPLICATION:
            return NOT_FOUND
        self._application_selected = True
        self._current_file = None
        return OK

    def _select_file(self, file_id: bytes) -> int:
        if len(file_id) != 2:
            return WRONG_LENGTH
        number = int.from_bytes(file_id, "big")
        if not self._application_selected or number not in SHORT_FILE_IDS.values():
            return NOT_FOUND
        self._current_file = number
        return OK

    def _read_binary(self, command: Command) -> bytes:
        if command.data or command.le is None:
            return _status(WRONG_LENGTH)
        offset = command.p1 << 8 | command.p2
        if command.p1 & 0x80:  # short file identifier in P1, offset in P2
            if command.p1 & 0x60 or not self._application_selected:
                return _status(WRONG_P1_P2)
            self._current_file = SHORT_FILE_IDS.get(command.p1 & 0x1F)
            offset = command.p2
            if self._current_file is None:
                return _status(NOT_FOUND)
        return self._read_at(offset, command.le)

    def _read_at(self, offset: int, le: int) -> bytes:
        if self._current_file is None:
            return _status(NO_CURRENT_FILE)
        if self._current_file == PROPRIETARY_FILE:
            return _status(SECURITY_STATUS)
        is_ndef = self._current_file == NDEF_FILE
        if offset >= (NDEF_FILE_BYTES if is_ndef else len(CAPABILITY_CONTAINER)):
            return _status(WRONG_OFFSET)
        content = self.ndef_file() if is_ndef else CAPABILITY_CONTAINER
        if content is None:
            return _status(CONDITIONS)
        part = content[offset : offset + le]
        short = len(part) < le and le != 256  # Le = 00h asks for "all there is"
        return part + _status(END_OF_FILE if short else OK)


def uri_ndef_file(url: bytes) -> bytes:
    """An NDEF file with one URI record for an https URL: NLEN, record, zero fill, 256 bytes.

    Raises ValueError when the URL is not https or does not fit.
    """
    prefix = b"https://"
    if not url.startswith(prefix):
        raise ValueError("the URL must start with https://")
    # NFC Forum URI RTD table 3: identifier code 04h is "https://". D1h: MB, ME, SR, well-known.
    payload = b"\x04" + url.removeprefix(prefix)
    if len(payload) > NDEF_FILE_BYTES - 6:
        raise ValueError(f"the URL has more than {NDEF_FILE_BYTES - 6 + len(prefix) - 1} bytes")
    message = bytes([0xD1, 0x01, len(payload)]) + b"U" + payload
    return (len(message).to_bytes(2, "big") + message).ljust(NDEF_FILE_BYTES, b"\x00")


def _status(word: int) -> bytes:
    return word.to_bytes(2, "big")
