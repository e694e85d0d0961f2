"""Cards on their own: blocks, files, status words, the SDM counter, and bytes nobody expects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_hwsim.cards import Card, CardAnswer, Ntag21x, Ntag424, ReplayedCard
from tests.support.hwsim_fixtures import META_READ_KEY, UID, sun_card

RATS_256 = b"\xe0\x80"
RATS_64 = b"\xe0\x50"
SELECT_APPLICATION = bytes.fromhex("00A4040007D2760000850101")
SELECT_NDEF = bytes.fromhex("00A4000C02E104")
SELECT_CC = bytes.fromhex("00A4000C02E103")
READ_128 = bytes.fromhex("00B0000080")
OK = b"\x90\x00"


class Host:
    """A reader's side of ISO-DEP, one block at a time."""

    def __init__(self, card: Card, rats: bytes = RATS_256) -> None:
        self.card = card
        self.number = 0
        card.power_lost()
        assert card.activate()
        assert card.receive(rats) == CardAnswer(card.ats or b"")

    def block(self, pcb: int, information: bytes = b"") -> bytes:
        answer = self.card.receive(bytes([pcb]) + information)
        assert answer is not None
        return answer.frame

    def apdu(self, command: bytes) -> bytes:
        frame = self.block(0x02 | self.number, command)
        whole = frame[1:]
        while frame[0] & 0x10:
            self.number ^= 1
            frame = self.block(0xA2 | self.number)
            whole += frame[1:]
        assert frame[0] == 0x02 | self.number
        self.number ^= 1
        return whole

    def sun(self) -> bytes:
        assert self.apdu(SELECT_APPLICATION) == OK
        assert self.apdu(SELECT_NDEF) == OK
        answer = self.apdu(READ_128)
        assert answer[-2:] == OK
        return answer[:-2]


def url_of(content: bytes) -> str:
    assert content[2:4] == b"\xd1\x01"
    assert content[5:7] == b"U\x04"
    return "https://" + content[7 : 6 + content[4]].decode()


def test_a_sun_read_mirrors_the_proof_of_the_next_counter() -> None:
    card = sun_card(counter=41)
    picc, mac = card.sun_proof(42)
    assert url_of(Host(card).sun()) == f"https://tap.example/t?picc={picc}&mac={mac}"
    assert card.counter == 42


def test_reads_in_a_row_share_one_counter_value_and_another_command_ends_the_row() -> None:
    card = sun_card()
    host = Host(card)
    first = host.sun()
    assert host.apdu(bytes.fromhex("00B0000010"))[:-2] == first[:16]
    assert card.counter == 1
    assert host.sun() != first
    assert card.counter == 2


def test_power_loss_starts_a_new_read_and_forgets_the_selection() -> None:
    card = sun_card()
    first = Host(card).sun()
    host = Host(card)
    assert host.apdu(READ_128) == bytes.fromhex("6986")
    assert host.sun() != first
    assert card.counter == 2


def test_a_refused_read_does_not_advance_the_counter() -> None:
    card = sun_card()
    host = Host(card)
    host.apdu(SELECT_APPLICATION)
    host.apdu(SELECT_NDEF)
    assert host.apdu(bytes.fromhex("00B0010010")) == bytes.fromhex("6B00")
    assert card.counter == 0


def test_the_counter_stops_at_24_bits() -> None:
    card = sun_card(counter=0xFFFFFE)
    Host(card).sun()
    host = Host(card)
    host.apdu(SELECT_APPLICATION)
    host.apdu(SELECT_NDEF)
    assert host.apdu(READ_128) == bytes.fromhex("6985")
    assert card.counter == 0xFFFFFF
    with pytest.raises(RuntimeError, match="used up"):
        card.read_sun_url()


def test_a_tap_without_radio_gives_what_the_radio_would() -> None:
    assert sun_card(counter=7).read_sun_url() == url_of(Host(sun_card(counter=7)).sun())


def test_personalised_cards_of_one_master_have_their_own_file_key() -> None:
    proofs = [
        Ntag424.personalised(uid, bytes(16), sdm_meta_read_key=META_READ_KEY).sun_proof(1)
        for uid in (UID, bytes(7))
    ]
    assert proofs[0][1] != proofs[1][1]


def test_a_replayed_card_says_the_same_for_ever() -> None:
    url = sun_card().read_sun_url().encode()
    clone = ReplayedCard(url, UID)
    assert url_of(Host(clone).sun()) == url_of(Host(clone).sun()) == url.decode()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("00", "6700"),
        ("00A40400", "6A82"),
        ("00A4040007D27600008501", "6700"),
        ("00A4040007D2760000850102", "6A82"),
        ("00A4040000D27600", "6700"),
        ("00A4010C02E104", "6A86"),
        ("00A4000402E104", "6A86"),
        ("00A4000C02E1FF", "6A82"),
        ("00A4000C01E1", "6700"),
        ("00B00000", "6700"),
        ("00B0FF0010", "6A86"),
        ("00B09F0010", "6A82"),
        ("00B0850010", "6982"),
        ("00D600000100", "6982"),
        ("0084000008", "6D00"),
        ("80CA000000", "6E00"),
        ("9060000000", "911C"),
    ],
)
def test_every_hostile_command_gets_a_status_word(command: str, status: str) -> None:
    host = Host(sun_card())
    host.apdu(SELECT_APPLICATION)
    assert host.apdu(bytes.fromhex(command)) == bytes.fromhex(status)


def test_files_need_their_application_first() -> None:
    assert Host(sun_card()).apdu(SELECT_NDEF) == bytes.fromhex("6A82")


def test_the_capability_container_names_the_ndef_file() -> None:
    host = Host(sun_card())
    host.apdu(SELECT_APPLICATION)
    host.apdu(SELECT_CC)
    content = host.apdu(bytes.fromhex("00B0000017"))
    assert content[:2] == (23).to_bytes(2, "big")
    assert bytes.fromhex("0406E1040100") in content


def test_a_long_answer_is_chained_to_the_readers_frame_size() -> None:
    card = sun_card()
    expected = Host(card).sun()
    card = sun_card()
    assert Host(card, RATS_64).sun() == expected


def test_a_chained_command_is_acknowledged_and_run_once() -> None:
    host = Host(sun_card())
    assert host.block(0x12, SELECT_APPLICATION[:5]) == b"\xa2"
    assert host.block(0x03, SELECT_APPLICATION[5:]) == b"\x03" + OK


def test_a_lost_answer_is_repeated_without_running_the_command_again() -> None:
    card = sun_card()
    host = Host(card)
    content = host.sun()
    again = card.receive(bytes([0xB2 | host.number ^ 1]))
    assert again is not None
    assert again.apdu is None
    assert again.frame[1:-2] == content
    assert card.counter == 1


def test_a_presence_check_changes_nothing() -> None:
    card = sun_card()
    host = Host(card)
    host.sun()
    for _ in range(5):
        assert host.block(0xB2 | host.number)[0] & 0xF6 == 0xA2
    assert host.apdu(bytes.fromhex("00B0000010"))[-2:] == OK
    assert card.counter == 1


def test_a_card_may_ask_for_time_first() -> None:
    host = Host(sun_card(wtx_per_apdu=2))
    assert host.block(0x02, SELECT_APPLICATION) == b"\xf2\x01"
    assert host.block(0xF2, b"\x01") == b"\xf2\x01"
    assert host.block(0xF2, b"\x01") == b"\x02" + OK


def test_a_deselected_card_is_silent_until_power_is_lost() -> None:
    card = sun_card()
    host = Host(card)
    assert host.block(0xC2) == b"\xc2"
    assert card.receive(b"\x02" + SELECT_APPLICATION) is None
    assert not card.activate()
    card.power_lost()
    assert card.activate()


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_no_bytes_break_a_card(frames: list[bytes]) -> None:
    for card in (sun_card(), Ntag21x(UID)):
        card.power_lost()
        card.activate()
        card.receive(RATS_256)
        for frame in frames:
            card.receive(frame)
        card.power_lost()
        assert card.activate()


@given(st.binary(max_size=261))
def test_any_command_ends_in_a_status_word(command: bytes) -> None:
    _name, answer = sun_card().apdu(command)
    assert len(answer) >= 2
    assert answer[-2] in range(0x60, 0xA0)


@pytest.mark.parametrize(
    ("model", "size", "pages"), [("ntag213", 0x0F, 45), ("ntag215", 0x11, 135)]
)
def test_a_type_2_tag_tells_its_model_and_uid(model: str, size: int, pages: int) -> None:
    tag = Ntag21x(UID, model)
    assert tag.activate()
    version = tag.receive(b"\x60")
    assert version is not None
    assert version.frame[6] == size
    head = tag.receive(b"\x30\x00")
    assert head is not None
    assert head.frame[:3] + head.frame[4:8] == UID
    assert head.frame[3] == 0x88 ^ UID[0] ^ UID[1] ^ UID[2]
    last = tag.receive(bytes([0x30, pages - 1]))
    assert last is not None
    assert last.frame[4:] == head.frame[:12]


@pytest.mark.parametrize("frame", ["30FF", "A20400000000", "1B00000000", "00", "3A0500"])
def test_a_type_2_tag_refuses_with_a_nak_and_must_be_selected_again(frame: str) -> None:
    tag = Ntag21x(UID)
    assert tag.activate()
    answer = tag.receive(bytes.fromhex(frame))
    assert answer is not None
    assert answer.short
    assert tag.receive(b"\x60") is None
    assert tag.activate()
    assert tag.receive(b"\x60") is not None


def test_bad_construction_is_refused() -> None:
    with pytest.raises(ValueError, match="7-byte"):
        Ntag424(bytes(4), bytes(16), bytes(16))
    with pytest.raises(ValueError, match="16 bytes"):
        Ntag424(UID, bytes(15), bytes(16))
    with pytest.raises(ValueError, match="https"):
        Ntag424(UID, bytes(16), bytes(16), base_url="http://tap.example/t")
    with pytest.raises(ValueError, match="more than"):
        Ntag424(UID, bytes(16), bytes(16), base_url="https://" + 300 * "x")
    with pytest.raises(ValueError, match="no such model"):
        Ntag21x(UID, "ntag999")
