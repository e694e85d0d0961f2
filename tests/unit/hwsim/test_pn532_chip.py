"""The PN532 command machine without a port: clock, line speed and bytes come from the test."""

from __future__ import annotations

import random
from typing import Any

import pytest

from taprail_hwsim.cards import Ntag21x
from taprail_hwsim.pn532.chip import Pn532Chip
from taprail_hwsim.pn532.crc_a import crc_a
from taprail_hwsim.pn532.frames import ACK_FRAME, FrameDecoder, encode
from taprail_hwsim.pn532.rf_field import RfField
from taprail_hwsim.pn532.uart import HostUart
from tests.support.hwsim_fixtures import NDEF_APPLICATION, UID, sun_card

PREAMBLE = bytes(10)
ATS = bytes.fromhex("067777710080")
SYNTAX_ERROR = bytes.fromhex("0000FF01FF7F8100")
NACK_FRAME = bytes.fromhex("0000FFFF0000")
SELECT = b"\x02\x00\xa4\x04\x00\x07" + NDEF_APPLICATION


class Bench:
    """A chip with a hand-cranked clock and a host at a chosen speed."""

    def __init__(self, **options: Any) -> None:
        self.events: list[str] = []
        self.field = RfField(lambda name, _details: self.events.append(name))
        self.chip = Pn532Chip(self.field, **options)
        self.now_s = 100.0
        self.line_baud = 115200
        self.write(PREAMBLE)

    def write(self, data: bytes) -> bytes:
        self.chip.receive(data, self.now_s, self.line_baud)
        return self.chip.output(self.now_s, self.line_baud)

    def wait(self, seconds: float) -> bytes:
        self.now_s += seconds
        return self.chip.output(self.now_s, self.line_baud)

    def ask(self, code: int, data: bytes = b"") -> bytes | None:
        """The answer's data after the ACK; None while there is no answer yet."""
        return self.read(self.write(encode(bytes([0xD4, code]) + data)), code)

    def read(self, seen: bytes, code: int) -> bytes | None:
        payload = FrameDecoder().feed(seen.removeprefix(ACK_FRAME))
        if not payload:
            return None
        assert isinstance(payload[0], bytes)
        assert payload[0][:2] == bytes([0xD5, code + 1])
        return payload[0][2:]

    def find_card(self) -> bytes | None:
        self.ask(0x12, b"\x00")  # no automatic RATS
        self.ask(0x32, b"\x05\x01\x00\x01")
        return self.ask(0x4A, b"\x01\x00")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_sleeps_until_the_fifth_rising_edge() -> None:
    field = RfField(lambda _name, _details: None)
    chip = Pn532Chip(field)
    question = encode(b"\xd4\x02")
    chip.receive(bytes(4), 0.0, 115200)
    chip.receive(b"\x00", 0.0, 115200)
    chip.receive(question, 0.0, 115200)
    assert chip.output(0.0, 115200).startswith(ACK_FRAME)


@pytest.mark.parametrize(("byte", "needed"), [(0x00, 5), (0x55, 1), (0xFF, 5), (0x0F, 3)])
def test_wake_up_counts_edges_not_bytes(byte: int, needed: int) -> None:
    uart = HostUart()
    for _ in range(needed):
        assert uart.asleep
        uart.received(bytes([byte]), 115200)
    assert not uart.asleep


def test_the_acknowledge_comes_at_once_and_the_answer_after_it(bench: Bench) -> None:
    seen = bench.write(encode(b"\xd4\x02"))
    assert seen == ACK_FRAME + encode(bytes.fromhex("D50332010607"))


def test_the_line_test_echoes_the_longest_frame(bench: Bench) -> None:
    pattern = b"\x00" + bytes(x & 0xFF for x in range(262))
    assert bench.ask(0x00, pattern) == pattern


@pytest.mark.parametrize(
    "payload",
    [
        "D4",
        "D500",
        "D4FF",
        "D440",
        "D400",
        "D40009",
        "D40200",
        "D40663",
        "D4086305",
        "D41009",
        "D41200FF",
        "D41405",
        "D416",
        "D43203",
        "D4320100FF",
        "D43202001100",
        "D442",
        "D44A0000",
        "D44A0300",
        "D44A0105",
    ],
)
def test_a_malformed_command_gets_the_error_frame_and_harms_nothing(
    bench: Bench, payload: str
) -> None:
    assert bench.write(encode(bytes.fromhex(payload))) == ACK_FRAME + SYNTAX_ERROR
    assert bench.ask(0x02) == bytes.fromhex("32010607")


def test_a_broken_checksum_gets_no_answer_at_all(bench: Bench) -> None:
    broken = bytearray(encode(b"\xd4\x02"))
    broken[-2] ^= 1
    assert bench.write(bytes(broken) + bytes(20)) == b""


def test_nack_repeats_the_last_answer(bench: Bench) -> None:
    bench.ask(0x02)
    assert bench.write(NACK_FRAME) == encode(bytes.fromhex("D50332010607"))


def test_an_empty_field_answers_no_target_and_leaves_reqa_in_the_fifo(bench: Bench) -> None:
    assert bench.find_card() == b"\x00"
    assert bench.ask(0x06, b"\x63\x39") == b"\x26"
    assert bench.events == ["field_on"]


def test_target_data_of_a_card(bench: Bench) -> None:
    bench.field.put(sun_card(), None)
    assert bench.find_card() == bytes.fromhex("0101034420") + b"\x07" + UID


def test_automatic_rats_appends_the_ats(bench: Bench) -> None:
    card = sun_card()
    bench.field.put(card, None)
    bench.ask(0x32, b"\x05\x01\x00\x01")
    found = bench.ask(0x4A, b"\x01\x00")
    assert found is not None
    assert found[-len(ATS) :] == ATS == card.ats


def test_only_the_wanted_card_is_selected(bench: Bench) -> None:
    bench.field.put(sun_card(), None)
    bench.find_card()
    bench.ask(0x32, b"\x01\x00")
    assert bench.ask(0x4A, b"\x01\x00\x88" + UID) is not None
    bench.ask(0x32, b"\x01\x00")
    assert bench.ask(0x4A, b"\x01\x00\x88" + bytes(7)) == b"\x00"


def test_endless_polling_finds_a_card_that_comes_later(bench: Bench) -> None:
    bench.ask(0x12, b"\x00")
    assert bench.ask(0x4A, b"\x01\x00") is None
    bench.wait(30.0)
    bench.field.put(sun_card(), None)
    assert bench.read(bench.wait(0.006), 0x4A) is not None


def test_a_host_ack_aborts_what_is_under_way(bench: Bench) -> None:
    bench.ask(0x4A, b"\x01\x00")
    assert bench.write(ACK_FRAME) == b""
    bench.field.put(sun_card(), None)
    assert bench.wait(1.0) == b""
    assert bench.chip.next_due_s is None


@pytest.mark.parametrize(("index", "limit_s"), [(1, 100e-6), (10, 51.2e-3), (16, 3.2768)])
def test_silence_lasts_the_configured_time(bench: Bench, index: int, limit_s: float) -> None:
    bench.find_card()
    bench.ask(0x32, bytes([0x02, 0x00, 0x0B, index]))
    assert bench.ask(0x42, b"\x30\x00") is None
    assert bench.wait(limit_s * 0.99) == b""
    assert bench.read(bench.wait(limit_s * 0.02), 0x42) == b"\x01"


def test_index_0_waits_for_the_host_only(bench: Bench) -> None:
    bench.find_card()
    bench.ask(0x32, b"\x02\x00\x0b\x00")
    assert bench.ask(0x42, b"\x30\x00") is None
    assert bench.chip.next_due_s is None
    assert bench.wait(1e6) == b""
    assert bench.ask(0x02) is not None


def test_a_lifted_card_answers_with_the_timeout_status_after_the_limit() -> None:
    bench = Bench(rf_delay_s=0.01)
    bench.field.put(sun_card(), None)
    bench.find_card()
    bench.wait(0.03)
    assert bench.ask(0x42, b"\xe0\x80") is None
    bench.wait(0.005)
    bench.field.lift()
    assert bench.wait(0.04) == b""
    assert bench.read(bench.wait(0.0063), 0x42) == b"\x01"


def test_an_exchange_takes_its_air_time() -> None:
    bench = Bench(rf_delay_s=0.01)
    bench.field.put(sun_card(), None)
    assert bench.find_card() is None
    assert bench.read(bench.wait(0.0101), 0x4A) is not None


def test_a_torn_card_leaves_after_its_last_answer(bench: Bench) -> None:
    bench.field.put(sun_card(), tear_after_apdus=1)
    bench.find_card()
    bench.ask(0x42, b"\xe0\x80")
    assert bench.ask(0x42, SELECT) == b"\x00\x02\x90\x00"
    assert bench.field.card is None
    assert bench.ask(0x42, b"\x03" + SELECT[1:]) is None
    assert bench.events[-2:] == ["apdu", "card_lifted"]


def test_crc_is_checked_by_the_chip_or_handed_to_the_host(bench: Bench) -> None:
    bench.field.put(Ntag21x(UID), None)
    bench.find_card()
    version = bench.ask(0x42, b"\x60")
    assert version is not None
    bench.ask(0x08, b"\x63\x03\x00")
    assert bench.ask(0x42, b"\x60") == version + crc_a(version[1:])


def test_a_host_that_turns_the_senders_crc_off_must_bring_its_own(bench: Bench) -> None:
    bench.field.put(Ntag21x(UID), None)
    bench.find_card()
    bench.ask(0x08, b"\x63\x02\x00")
    assert bench.ask(0x42, b"\x60") is None
    assert bench.ask(0x42, b"\x60" + crc_a(b"\x60")) is not None


def test_a_nak_of_four_bits_is_a_crc_error_unless_the_host_checks(bench: Bench) -> None:
    bench.field.put(Ntag21x(UID), None)
    bench.find_card()
    assert bench.ask(0x42, b"\x1b\x00\x00\x00\x00") == b"\x02"
    bench.find_card()
    bench.ask(0x08, b"\x63\x03\x00")
    assert bench.ask(0x42, b"\x1b\x00\x00\x00\x00") == b"\x00\x00"


def test_a_disturbed_answer_is_a_crc_error_and_not_a_removal(bench: Bench) -> None:
    bench.field.put(sun_card(), None)
    bench.find_card()
    bench.field.disturb(1)
    assert bench.ask(0x42, b"\xe0\x80") == b"\x02"
    assert bench.ask(0x42, SELECT) == b"\x00\x02\x90\x00"


def test_field_off_resets_the_card_and_the_register_tells(bench: Bench) -> None:
    bench.field.put(sun_card(), None)
    bench.find_card()
    assert bench.ask(0x06, b"\x63\x04") == b"\x83"
    bench.ask(0x32, b"\x01\x02")
    assert bench.ask(0x06, b"\x63\x04") == b"\x80"
    assert bench.ask(0x42, b"\xe0\x80") is None
    assert bench.events == ["card_put", "field_on", "card_activated", "field_off"]


def test_the_new_speed_holds_from_the_hosts_ack(bench: Bench) -> None:
    assert bench.ask(0x10, b"\x07") == b""
    assert bench.chip.baud == 115200
    bench.write(ACK_FRAME)
    assert bench.chip.baud == 921600
    assert bench.ask(0x02) is None
    bench.line_baud = 921600
    assert bench.ask(0x02) == bytes.fromhex("32010607")


def test_a_lost_ack_does_not_part_host_and_chip(bench: Bench) -> None:
    bench.ask(0x10, b"\x07")
    bench.line_baud = 921600
    assert bench.ask(0x02) == bytes.fromhex("32010607")


def test_at_the_wrong_speed_there_is_only_noise(bench: Bench) -> None:
    bench.line_baud = 921600
    assert bench.ask(0x02) is None
    uart = HostUart(seed=1)
    uart.received(PREAMBLE, 115200)
    question = encode(b"\xd4\x02")
    assert len(uart.received(question, 921600)) == round(len(question) / 8)
    assert len(uart.received(question, 9600)) == len(question) * 8
    assert uart.transmitted(question, 9600) != question


def test_power_down_sleeps_with_the_field_off_and_wakes_by_the_line(bench: Bench) -> None:
    bench.find_card()
    assert bench.ask(0x16, b"\x10") == b"\x00"
    assert not bench.field.on
    assert bench.ask(0x02) is None
    bench.write(PREAMBLE)
    assert bench.ask(0x02) is not None


def test_without_hsu_as_wake_up_source_only_a_reset_helps(bench: Bench) -> None:
    bench.ask(0x16, b"\x20")
    bench.write(PREAMBLE)
    assert bench.ask(0x02) is None
    bench.chip.power_cycle()
    bench.write(PREAMBLE)
    assert bench.ask(0x02) is not None


def test_a_hung_chip_is_silent_until_its_reset(bench: Bench) -> None:
    bench.chip.hang()
    assert bench.write(encode(b"\xd4\x02")) == b""
    bench.chip.power_cycle()
    bench.write(PREAMBLE)
    assert bench.ask(0x02) is not None


def test_modelled_line_speed_delays_answers() -> None:
    bench = Bench(model_line_speed=True)
    question = encode(b"\xd4\x02")
    assert bench.write(question) == b""
    assert bench.wait(len(question + ACK_FRAME) * 10 / 115200 - 1e-6) == b""
    assert bench.wait(2e-6) == ACK_FRAME
    assert bench.read(bench.wait(13 * 10 / 115200 + 1e-6), 0x02) is not None


def test_crc_a_of_the_standards_examples() -> None:
    assert crc_a(b"\x00\x00") == bytes.fromhex("A01E")  # ISO/IEC 14443-3 annex B.2
    assert crc_a(b"\x12\x34") == bytes.fromhex("26CF")


def test_random_commands_never_break_the_chip() -> None:
    bench = Bench()
    bench.field.put(sun_card(), None)
    source = random.Random(20)
    codes = [0x00, 0x02, 0x06, 0x08, 0x12, 0x14, 0x32, 0x42, 0x4A]
    for _ in range(3000):
        payload = bytes([0xD4, source.choice(codes)]) + source.randbytes(source.randrange(20))
        assert bench.write(encode(payload)).startswith(ACK_FRAME)
    assert bench.ask(0x02) == bytes.fromhex("32010607")
