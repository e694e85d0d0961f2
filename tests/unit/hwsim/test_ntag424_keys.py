"""The simulated chip's keyed commands: by NXP's examples, and by a reader written apart from it."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import TypeVar

import pytest
from Crypto.Cipher import AES

from taprail_gateway.personalize import chip
from taprail_hwsim.cards import Ntag424Chip
from taprail_hwsim.cards.ntag424_files import FREE, NEVER, Rights, Settings, SettingsError
from taprail_hwsim.cards.ntag424_session import Challenge, Session, crc32_nk

T = TypeVar("T")
UID = bytes.fromhex("04DE5F1EACC040")
ZERO = bytes(16)
KEY = bytes(range(16))
SELECT = bytes.fromhex("00A4040007D276000085010100")
READ_DATA = 0xAD
# AN12196 rev. 2.0 table 14.
RND_A = bytes.fromhex("13C5DB8A5930439FC3DEF9A4C675360F")
RND_B = bytes.fromhex("B9E2FC789B64BF237CCCAA20EC7E6E48")
TI = bytes.fromhex("9D00C4DF")


class Reader:
    """A card that is selected, and a session with it."""

    def __init__(self, card: Ntag424Chip) -> None:
        self.card = card
        self._chance = random.Random(1)
        card.power_lost()
        assert card.apdu(SELECT)[1] == b"\x90\x00"

    def send(self, command: bytes) -> bytes:
        return self.card.apdu(command)[1]

    def through(self, conversation: Generator[bytes, bytes, T]) -> T:
        try:
            command = next(conversation)
            while True:
                command = conversation.send(self.send(command))
        except StopIteration as end:
            result: T = end.value
            return result

    def open(self, number: int = 0, key: bytes = ZERO) -> chip.Session:
        session = self.try_open(number, key)
        assert session is not None
        return session

    def try_open(self, number: int, key: bytes) -> chip.Session | None:
        return self.through(chip.authenticate(number, key, self._chance.randbytes))


def place(at: int, length: int) -> bytes:
    return at.to_bytes(3, "little") + length.to_bytes(3, "little")


@pytest.fixture
def reader() -> Reader:
    return Reader(Ntag424Chip(UID))


# --- by the vectors -------------------------------------------------------------------------------


class _Drawn(random.Random):
    """Draws what table 14 has drawn."""

    def randbytes(self, n: int) -> bytes:
        assert n == len(TI)
        return TI


def test_an12196_authentication() -> None:
    challenge = Challenge(0, RND_B, None)
    assert challenge.command(ZERO).hex().upper() == "A04C124213C186F22399D33AC2A30215"
    reply = "35C3E05A752E0144BAC0DE51C1F22C56B34408A23D8AEA266CAB947EA8E0118D"
    done = challenge.finish(ZERO, bytes.fromhex(reply), _Drawn())
    assert done is not None
    proof, session = done
    assert proof.hex().upper() == "3FA64DB5446D1F34CD6EA311167F5E4985B89690C04A05F17FA7AB2F08120663"
    assert session.ti == TI


def test_an12196_file_settings() -> None:
    session = Session(ZERO, 0, RND_A, RND_B, TI, counter=1)
    data = bytes.fromhex("0261B6D97903566E84C3AE5274467E89EAD799B7C1A0EF7A04")
    body = session.check_mac(0x5F, data)
    plain = session.decrypt(body[1:])
    assert plain.hex().upper() == "4000E0C1F121200000430000430000"
    assert session.answer_maced(b"").hex().upper() == "57BFF87B1241E93D"
    settings = Settings.parse(plain, 256, may_mirror=True)
    assert settings.rights == Rights(read=FREE, write=0, read_write=0, change=0)
    assert settings.sdm is not None
    assert (settings.sdm.meta_read, settings.sdm.file_read, settings.sdm.counter_read) == (2, 1, 1)
    assert settings.encode() == plain


def test_an12196_crc_of_a_key() -> None:
    key = bytes.fromhex("F3847D627727ED3BC9C4CC050489B966")
    assert crc32_nk(key).hex().upper() == "789DFADC"


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_is_changed_and_its_version_told(reader: Reader) -> None:
    session = reader.open()
    data = chip.new_key_data(3, KEY, 7, ZERO)
    session.opened("", reader.send(session.full(chip.CHANGE_KEY, b"\x03", data)))
    version = session.opened("", reader.send(session.maced(chip.GET_KEY_VERSION, b"\x03")))
    assert version == b"\x07"
    assert reader.try_open(3, ZERO) is None
    reader.open(3, KEY)
    assert Reader(reader.card).send(chip.native(chip.GET_KEY_VERSION, b"\x03")) == b"\x07\x91\x00"


def test_the_masters_change_ends_the_session(reader: Reader) -> None:
    session = reader.open()
    data = chip.new_key_data(0, KEY, 1, ZERO)
    assert reader.send(session.full(chip.CHANGE_KEY, b"\x00", data)) == b"\x91\x00"
    assert reader.send(session.maced(chip.GET_CARD_UID)) == b"\x91\xae"
    reader.open(0, KEY)


def test_a_wrong_old_key_changes_nothing_and_ends_the_session(reader: Reader) -> None:
    session = reader.open()
    data = chip.new_key_data(1, KEY, 1, old_key=KEY)
    assert reader.send(session.full(chip.CHANGE_KEY, b"\x01", data)) == b"\x91\x1e"
    assert reader.send(session.maced(chip.GET_CARD_UID)) == b"\x91\xae"
    reader.open(1, ZERO)


def test_only_the_master_changes_keys(reader: Reader) -> None:
    session = reader.open(1)
    data = chip.new_key_data(1, KEY, 1, ZERO)
    assert reader.send(session.full(chip.CHANGE_KEY, b"\x01", data)) == b"\x91\xae"
    reader.open(1, ZERO)


@pytest.mark.parametrize("bit", [0, 40, 100, 200, 300])
def test_a_changed_bit_is_an_integrity_error(reader: Reader, bit: int) -> None:
    session = reader.open()
    data = chip.new_key_data(1, KEY, 1, ZERO)
    command = bytearray(session.full(chip.CHANGE_KEY, b"\x01", data))
    command[5 + bit // 8] ^= 1 << bit % 8
    assert reader.send(bytes(command)) == b"\x91\x1e"
    reader.open(1, ZERO)


def test_a_command_cannot_be_replayed(reader: Reader) -> None:
    session = reader.open()
    command = session.maced(chip.GET_CARD_UID)
    assert session.decrypted("", reader.send(command)) == UID
    assert reader.send(command) == b"\x91\x1e"


def test_a_second_authentication_goes_on_in_the_same_transaction(reader: Reader) -> None:
    session = reader.open()
    assert session.decrypted("", reader.send(session.maced(chip.GET_CARD_UID))) == UID
    challenge = reader.send(chip.native(0x77, b"\x01"))
    assert challenge[-2:] == b"\x91\xaf"
    rnd_b = AES.new(ZERO, AES.MODE_CBC, ZERO).decrypt(challenge[:-2])
    reply = AES.new(ZERO, AES.MODE_CBC, ZERO).encrypt(RND_A + rnd_b[1:] + rnd_b[:1])
    answer = reader.send(chip.native(0xAF, reply))
    assert answer[-2:] == b"\x91\x00"
    proof = AES.new(ZERO, AES.MODE_CBC, ZERO).decrypt(answer[:-2])
    assert proof == RND_A[1:] + RND_A[:1]
    again = chip.session_of(ZERO, RND_A, rnd_b, session._transaction)
    again._counter = 1  # it is not begun anew
    assert again.decrypted("", reader.send(again.maced(chip.GET_CARD_UID))) == UID


def test_a_second_authentication_needs_a_first(reader: Reader) -> None:
    assert reader.send(chip.native(0x77, b"\x01")) == b"\x91\x9d"


def test_wrong_keys_in_a_row_are_answered_by_pauses_and_at_last_by_a_blocked_key() -> None:
    reader = Reader(Ntag424Chip(UID))
    for _ in range(50):
        assert reader.try_open(1, KEY) is None
    first = chip.native(chip.AUTHENTICATE_FIRST, b"\x01\x00")
    assert reader.send(first) == b"\x91\xad"
    reader.open(1, ZERO)  # the right key is let in once the pause is over
    assert reader.send(first)[-2:] == b"\x91\xaf"
    reader.open(2, ZERO)
    for _ in range(990 + 10):
        if reader.send(first) == b"\x91\xae":
            break
        reader.try_open(1, KEY)
    assert reader.send(first) == b"\x91\xae"
    reader.open(2, ZERO)  # each key counts for itself


# --- files ----------------------------------------------------------------------------------------


def test_a_free_file_is_written_and_read_by_anyone(reader: Reader) -> None:
    assert reader.send(chip.native(chip.WRITE_DATA, b"\x02" + place(3, 2) + b"ab")) == b"\x91\x00"
    answer = reader.send(chip.native(READ_DATA, b"\x02" + place(2, 4)))
    assert answer == b"\x00ab\x00\x91\x00"


def test_a_file_in_full_mode_is_written_and_read_by_its_keys(reader: Reader) -> None:
    """File 3 as delivered: key 2 reads, key 3 writes, all encrypted."""
    writer = reader.open(3)
    secret = b"a secret of more than a block"
    header = b"\x03" + place(5, len(secret))
    writer.opened("", reader.send(writer.full(chip.WRITE_DATA, header, secret)))
    session = reader.open(2)
    header = b"\x03" + place(5, len(secret))
    command = session.maced(READ_DATA, header)
    assert session.decrypted("", reader.send(command)) == secret
    assert reader.send(chip.native(READ_DATA, header)) == b"\x91\x1e"
    assert Reader(reader.card).send(chip.native(READ_DATA, header)) == b"\x91\xae"


def test_a_file_in_mac_mode_is_under_a_mac_both_ways(reader: Reader) -> None:
    session = reader.open()
    settings = bytes.fromhex("010000")  # CommMode.MAC; key 0 may do everything
    session.opened("", reader.send(session.full(chip.CHANGE_FILE_SETTINGS, b"\x02", settings)))
    data = b"\x02" + place(0, 3) + b"abc"
    session.opened("", reader.send(session.maced(chip.WRITE_DATA, data)))
    answer = reader.send(session.maced(READ_DATA, b"\x02" + place(0, 3)))
    assert session.opened("", answer) == b"abc"
    told = session.opened("", reader.send(session.maced(chip.GET_FILE_SETTINGS, b"\x02")))
    assert told.hex() == "00" + "010000" + "000100"


@pytest.mark.parametrize(
    ("ins", "data", "status"),
    [
        (chip.WRITE_DATA, "02 FF0000 020000 0000", "91be"),
        (chip.WRITE_DATA, "02 000000 020000 00", "917e"),
        (chip.WRITE_DATA, "09 000000 010000 00", "91f0"),
        (READ_DATA, "02 000100 010000", "91be"),
        (READ_DATA, "02", "917e"),
        (chip.GET_FILE_SETTINGS, "05", "91f0"),
        (chip.GET_FILE_SETTINGS, "0202", "917e"),
        (chip.CHANGE_FILE_SETTINGS, "02 00E0EE", "91ae"),
        (chip.GET_KEY_VERSION, "05", "9140"),
        (chip.GET_KEY_VERSION, "", "917e"),
        (chip.AUTHENTICATE_FIRST, "05 00", "9140"),
        (chip.AUTHENTICATE_FIRST, "00", "917e"),
        (chip.AUTHENTICATE_FIRST, "00 02 00", "917e"),
        (0xAF, "00" * 32, "911c"),
        (0x60, "", "911c"),
        (chip.GET_CARD_UID, "", "91ae"),
        (chip.CHANGE_KEY, "00" * 41, "91ae"),
    ],
)
def test_every_hostile_native_command_gets_a_status(
    reader: Reader, ins: int, data: str, status: str
) -> None:
    assert reader.send(chip.native(ins, bytes.fromhex(data))).hex() == status


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_proof_of_the_wrong_length_ends_the_authentication(reader: Reader, size: int) -> None:
    reader.send(chip.native(chip.AUTHENTICATE_FIRST, b"\x00\x00"))
    assert reader.send(chip.native(0xAF, bytes(size))) == b"\x91\x7e"
    assert reader.send(chip.native(0xAF, bytes(32))) == b"\x91\x1c"


def test_nothing_is_done_before_the_application_is_selected() -> None:
    card = Ntag424Chip(UID)
    assert card.apdu(chip.native(chip.AUTHENTICATE_FIRST, b"\x00\x00"))[1] == b"\x91\x9d"


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "4000",
        "8000E0",
        "0000E000",
        "4000E0",
        "4000E0C1FF12",
        "4000E0C1FF12" + "F00000" + "400000" * 2,  # PICC data beyond the file
        "4000E0C1FF12" + "200000" + "300000" * 2,  # the MAC inside the PICC data
        "4000E0C1FF12" + "200000" + "500000" + "430000",  # input behind the MAC
        "4000E0F1FF12" + "200000" + "430000" * 2,  # encrypted file data is not modelled
    ],
)
def test_settings_that_cannot_be_are_refused(settings: str) -> None:
    with pytest.raises(SettingsError):
        Settings.parse(bytes.fromhex(settings), 256, may_mirror=True)
    if settings:
        with pytest.raises(SettingsError):
            Settings.parse(bytes.fromhex("4000E0C1FF12" + "00" * 9), 128, may_mirror=False)


def test_rights_are_as_they_travel() -> None:
    rights = Rights(read=FREE, write=1, read_write=NEVER, change=0)
    assert rights.encode().hex() == "f0e1"
    assert Rights.parse(rights.encode()) == rights
