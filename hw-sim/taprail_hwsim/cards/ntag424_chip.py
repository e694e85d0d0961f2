"""The chip of an NTAG 424 DNA: SUN for everybody, native commands for whoever has its keys.

Answers for commands, keys and the SDM read counter (NT4H2421Gx rev. 3.0 clauses 9 and 10). Files
and their mirror are in `ntag424_files`, secure messaging in `ntag424_session`. Not modelled: LRP,
random ids, SetConfiguration, originality, the counter limit and encrypted file data.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from taprail_hwsim.cards import card_crypto, ntag424_files
from taprail_hwsim.cards.ntag424_files import FREE, NEVER, Rights, Settings, SettingsError
from taprail_hwsim.cards.ntag424_session import (
    Challenge,
    Failures,
    IntegrityError,
    Session,
    crc32_nk,
)
from taprail_hwsim.cards.type4 import (
    BY_NAME,
    CAPABILITY_CONTAINER,
    CC_FILE,
    NDEF_FILE,
    NDEF_FILE_BYTES,
    PROPRIETARY_FILE,
    READ_BINARY,
    SELECT,
    Command,
    Type4Card,
)

KEYS: Final = 5  # clause 8.2.3.1: AppKey 0 to 4

_FILE_NUMBERS: Final = {0x01: CC_FILE, 0x02: NDEF_FILE, 0x03: PROPRIETARY_FILE}
_PROPRIETARY_BYTES: Final = 128

# Clause 10.2 table 22.
AUTHENTICATE_FIRST, AUTHENTICATE_NEXT, MORE_DATA = 0x71, 0x77, 0xAF
CHANGE_KEY, GET_KEY_VERSION, GET_CARD_UID = 0xC4, 0x64, 0x51
CHANGE_FILE_SETTINGS, GET_FILE_SETTINGS, READ_DATA, WRITE_DATA = 0x5F, 0xF5, 0xAD, 0x8D
_NAMES: Final = {
    AUTHENTICATE_FIRST: "AuthenticateEV2First",
    AUTHENTICATE_NEXT: "AuthenticateEV2NonFirst",
    MORE_DATA: "AdditionalFrame",
    CHANGE_KEY: "ChangeKey",
    GET_KEY_VERSION: "GetKeyVersion",
    GET_CARD_UID: "GetCardUID",
    CHANGE_FILE_SETTINGS: "ChangeFileSettings",
    GET_FILE_SETTINGS: "GetFileSettings",
    READ_DATA: "ReadData",
    WRITE_DATA: "WriteData",
}

# Second status byte after 91h (table 23).
OK, MORE = 0x00, 0xAF
ILLEGAL_COMMAND, INTEGRITY_ERROR, NO_SUCH_KEY, LENGTH_ERROR = 0x1C, 0x1E, 0x40, 0x7E
PERMISSION_DENIED, PARAMETER_ERROR, DELAY, AUTHENTICATION_ERROR = 0x9D, 0x9E, 0xAD, 0xAE
BOUNDARY_ERROR, FILE_NOT_FOUND = 0xBE, 0xF0


class Refused(Exception):  # noqa: N818 - a status, as the data sheet names it
    """The command ends with this status, and so does an authentication."""

    def __init__(self, status: int) -> None:
        super().__init__(f"91{status:02X}")
        self.status = status


@dataclass
class _File:
    content: bytearray
    settings: Settings


def _delivered_files() -> dict[int, _File]:
    """Clause 8.2.3.4: as a chip leaves the factory."""
    container = CAPABILITY_CONTAINER.replace(bytes.fromhex("E104010000FF"), b"\xe1\x04\x01\0\0\0")
    plain, full = ntag424_files.PLAIN, ntag424_files.FULL
    return {
        CC_FILE: _File(bytearray(container), Settings(plain, Rights(FREE, 0, 0, 0))),
        NDEF_FILE: _File(bytearray(NDEF_FILE_BYTES), Settings(plain, Rights(FREE, FREE, FREE, 0))),
        PROPRIETARY_FILE: _File(bytearray(_PROPRIETARY_BYTES), Settings(full, Rights(2, 3, 3, 0))),
    }


class Ntag424Chip(Type4Card):
    """A chip as delivered: keys of zeros, an empty NDEF file that anyone may write. `counter` is
    the last SDM read counter that was given out."""

    kind = "ntag424"

    def __init__(self, uid: bytes, counter: int = 0, *, wtx_per_apdu: int = 0) -> None:
        if len(uid) != card_crypto.UID_BYTES:
            raise ValueError("an NTAG 424 DNA has a 7-byte UID")
        if not 0 <= counter <= card_crypto.COUNTER_MAX:
            raise ValueError("the SDM read counter has 24 bits")
        super().__init__(uid, wtx_per_apdu=wtx_per_apdu)
        self._keys = [bytes(card_crypto.KEY_BYTES)] * KEYS
        self._key_versions = [0] * KEYS
        self._failures = [Failures() for _ in range(KEYS)]
        self._files = _delivered_files()
        self._counter = counter
        self._open_read: bytes | None = None  # the file as the current run of reads sees it
        self._chance = random.Random(uid)
        self._challenge: Challenge | None = None
        self._session: Session | None = None

    @property
    def counter(self) -> int:
        return self._counter

    def apdu(self, command: bytes) -> tuple[str, bytes]:
        # Clause 9.3.1: only an unbroken run of reads shares one counter value.
        if len(command) < 2 or command[1] != READ_BINARY:
            self._open_read = None
        parsed = Command.parse(command)
        if parsed is not None and parsed.ins == SELECT and parsed.p1 == BY_NAME:
            self._session = self._challenge = None
        return super().apdu(command)

    def ndef_file(self) -> bytes | None:
        file = self._files[NDEF_FILE]
        if self._session is not None or file.settings.sdm is None:
            return bytes(file.content)
        if self._open_read is None:
            if not self.advance():
                return None
            self._open_read = self.file_at(self._counter)
        return self._open_read

    def forget_session(self) -> None:
        super().forget_session()
        self._open_read = self._session = self._challenge = None

    def advance(self) -> bool:
        """Begin the next read; False when the counter is used up."""
        if self._counter >= card_crypto.COUNTER_MAX:
            return False
        self._counter += 1
        return True

    def file_at(self, counter: int) -> bytes:
        """The NDEF file as anyone reads it at a counter value; changes nothing."""
        file = self._files[NDEF_FILE]
        if file.settings.sdm is None:
            return bytes(file.content)
        content, sdm = bytes(file.content), file.settings.sdm
        return ntag424_files.mirrored(content, sdm, self._keys, self._uid, counter)

    # --- native commands --------------------------------------------------------------------------

    def native_command(self, command: Command) -> tuple[str, bytes]:
        name = _NAMES.get(command.ins, f"INS {command.ins:02X}")
        challenge, self._challenge = self._challenge, None
        try:
            if command.p1 or command.p2 or command.ins not in _NAMES:
                raise Refused(ILLEGAL_COMMAND)
            if not self._application_selected:
                raise Refused(PERMISSION_DENIED)
            if command.ins == MORE_DATA:
                return name, self._prove(challenge, command.data) + b"\x91\x00"
            if command.ins in (AUTHENTICATE_FIRST, AUTHENTICATE_NEXT):
                return name, self._challenge_for(command) + b"\x91\xaf"
            return name, self._keyed[command.ins](command.data) + b"\x91\x00"
        except IntegrityError:
            self._session = None
            return name, bytes([0x91, INTEGRITY_ERROR])
        except Refused as refused:
            self._session = None  # clause 9.1.8: any error ends it
            return name, bytes([0x91, refused.status])

    @property
    def _keyed(self) -> dict[int, Callable[[bytes], bytes]]:
        return {
            CHANGE_KEY: self._change_key,
            GET_KEY_VERSION: self._get_key_version,
            GET_CARD_UID: self._get_card_uid,
            CHANGE_FILE_SETTINGS: self._change_file_settings,
            GET_FILE_SETTINGS: self._get_file_settings,
            READ_DATA: self._read_data,
            WRITE_DATA: self._write_data,
        }

    def _challenge_for(self, command: Command) -> bytes:
        first = command.ins == AUTHENTICATE_FIRST
        capabilities = command.data[2:] if first else b""
        if len(command.data) < (2 if first else 1) or (
            first and len(capabilities) != command.data[1]
        ):
            raise Refused(LENGTH_ERROR)
        number = command.data[0]
        if number >= KEYS:
            raise Refused(NO_SUCH_KEY)
        if not first and self._session is None:
            raise Refused(PERMISSION_DENIED)
        if self._failures[number].is_blocked:
            raise Refused(AUTHENTICATION_ERROR)
        if self._failures[number].must_wait():
            raise Refused(DELAY)
        inside = None if first else self._session
        self._session = None
        self._challenge = Challenge(number, self._chance.randbytes(16), inside)
        return self._challenge.command(self._keys[number])

    def _prove(self, challenge: Challenge | None, payload: bytes) -> bytes:
        if challenge is None:
            raise Refused(ILLEGAL_COMMAND)
        if len(payload) != 2 * card_crypto.BLOCK_BYTES:
            raise Refused(LENGTH_ERROR)
        failures = self._failures[challenge.number]
        done = challenge.finish(self._keys[challenge.number], payload, self._chance)
        if done is None:
            failures.failed()
            raise Refused(AUTHENTICATION_ERROR)
        failures.succeeded()
        proof, self._session = done
        return proof

    def _as_master(self) -> Session:
        if self._session is None or self._session.number != 0:
            raise Refused(AUTHENTICATION_ERROR)
        return self._session

    def _change_key(self, data: bytes) -> bytes:
        session = self._as_master()
        body = session.check_mac(CHANGE_KEY, data)
        if len(body) != 1 + 32:
            raise Refused(LENGTH_ERROR)
        number, plain = body[0], session.decrypt(body[1:])
        if number >= KEYS:
            raise Refused(NO_SUCH_KEY)
        if number == session.number:
            if len(plain) != 17:
                raise IntegrityError
            self._keys[number], self._key_versions[number] = plain[:16], plain[16]
            self._session = None
            return b""
        old = self._keys[number]
        new = bytes(a ^ b for a, b in zip(plain[:16], old, strict=False))
        if len(plain) != 21 or plain[17:] != crc32_nk(new):
            raise IntegrityError
        self._keys[number], self._key_versions[number] = new, plain[16]
        return session.answer_maced(b"")

    def _get_key_version(self, data: bytes) -> bytes:
        session = self._session
        number = data if session is None else session.check_mac(GET_KEY_VERSION, data)
        if len(number) != 1:
            raise Refused(LENGTH_ERROR)
        if number[0] >= KEYS:
            raise Refused(NO_SUCH_KEY)
        version = bytes([self._key_versions[number[0]]])
        return version if session is None else session.answer_maced(version)

    def _get_card_uid(self, data: bytes) -> bytes:
        if self._session is None:
            raise Refused(AUTHENTICATION_ERROR)
        if self._session.check_mac(GET_CARD_UID, data):
            raise Refused(LENGTH_ERROR)
        return self._session.answer_full(self._uid)

    def _file(self, number: int) -> _File:
        if number not in _FILE_NUMBERS:
            raise Refused(FILE_NOT_FOUND)
        return self._files[_FILE_NUMBERS[number]]

    def _get_file_settings(self, data: bytes) -> bytes:
        session = self._session
        number = data if session is None else session.check_mac(GET_FILE_SETTINGS, data)
        if len(number) != 1:
            raise Refused(LENGTH_ERROR)
        file = self._file(number[0])
        raw = file.settings.encode()
        size = len(file.content).to_bytes(3, "little")
        answer = bytes([ntag424_files.STANDARD_FILE]) + raw[:3] + size + raw[3:]
        return answer if session is None else session.answer_maced(answer)

    def _change_file_settings(self, data: bytes) -> bytes:
        file = self._file(data[0] if data else 0)
        mode = self._mode((file.settings.rights.change,), ntag424_files.FULL)
        body = self._take(CHANGE_FILE_SETTINGS, data, 1, mode)
        may_mirror = file is self._files[NDEF_FILE]
        try:
            file.settings = Settings.parse(body[1:], len(file.content), may_mirror=may_mirror)
        except SettingsError as exc:
            raise Refused(PARAMETER_ERROR) from exc
        if file.settings.sdm is not None:
            # Clause 9.3.1: "reset to 000000h when enabling SDM". Whether SDM that was enabled
            # before counts too is not said; this card does what costs its issuer more.
            self._counter = 0
        return self._give(b"", mode)

    def _read_data(self, data: bytes) -> bytes:
        file = self._file(data[0] if data else 0)
        rights = file.settings.rights
        mode = self._mode((rights.read, rights.read_write), file.settings.mode)
        body = self._take(READ_DATA, data, 7, ntag424_files.MACED if mode else mode)
        at, length = _place(body)
        if len(body) != 7:
            raise Refused(LENGTH_ERROR)
        content = (self.ndef_file() or b"") if file is self._files[NDEF_FILE] else file.content
        if at + length > len(content):
            raise Refused(BOUNDARY_ERROR)
        return self._give(bytes(content[at : at + length] if length else content[at:]), mode)

    def _write_data(self, data: bytes) -> bytes:
        file = self._file(data[0] if data else 0)
        rights = file.settings.rights
        mode = self._mode((rights.write, rights.read_write), file.settings.mode)
        body = self._take(WRITE_DATA, data, 7, mode)
        at, length = _place(body)
        if len(body) != 7 + length:
            raise Refused(LENGTH_ERROR)
        if at + length > len(file.content):
            raise Refused(BOUNDARY_ERROR)
        file.content[at : at + length] = body[7:]
        return self._give(b"", mode)

    def _mode(self, conditions: tuple[int, ...], own: int) -> int:
        """How this access is to be spoken (clause 8.2.3.3); Refused when it is not granted."""
        held = None if self._session is None else self._session.number
        if held is not None and held in conditions:
            return own
        if FREE in conditions:
            return ntag424_files.PLAIN
        if all(condition == NEVER for condition in conditions):
            raise Refused(PERMISSION_DENIED)
        raise Refused(AUTHENTICATION_ERROR)

    def _take(self, ins: int, data: bytes, header: int, mode: int) -> bytes:
        """A command's header and data, out of their secure messaging."""
        if mode == ntag424_files.PLAIN:
            return data
        if self._session is None:
            raise Refused(AUTHENTICATION_ERROR)
        body = self._session.check_mac(ins, data)
        if mode == ntag424_files.MACED:
            return body
        return body[:header] + self._session.decrypt(body[header:])

    def _give(self, data: bytes, mode: int) -> bytes:
        if self._session is None:
            return data
        if mode == ntag424_files.PLAIN:
            return self._session.answer_plain(data)
        if mode == ntag424_files.MACED:
            return self._session.answer_maced(data)
        return self._session.answer_full(data)


def _place(body: bytes) -> tuple[int, int]:
    """Offset and length of ReadData and WriteData (tables 77 and 80)."""
    return int.from_bytes(body[1:4], "little"), int.from_bytes(body[4:7], "little")
