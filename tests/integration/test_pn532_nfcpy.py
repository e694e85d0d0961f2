"""nfcpy's real PN532 driver on the simulated chip: what a terminal does, and what goes wrong."""

from __future__ import annotations

import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from typing import Any

import nfc.clf
import nfc.tag
import nfc.tag.tt4
import pytest
import serial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taprail_hwsim.cards import Ntag21x, ReplayedCard
from taprail_hwsim.pn532 import Pn532Simulator
from taprail_hwsim.pn532.frames import ACK_FRAME, encode
from tests.support.hwsim_fixtures import (
    NDEF_APPLICATION,
    NDEF_FILE,
    UID,
    open_reader,
    read_sun,
    reader,
    sun_card,
)

TYPE_A = nfc.clf.RemoteTarget("106A")
PREAMBLE = bytes(10)
GET_FIRMWARE = encode(b"\xd4\x02")
FIRMWARE_ANSWER = encode(bytes.fromhex("D50332010607"))
ANSWER_TIMEOUT_S = 5.0
PORT_GONE = (OSError, termios.error)

Frontend = Any  # nfcpy ships no types


@pytest.fixture
def sim() -> Iterator[Pn532Simulator]:
    with Pn532Simulator() as running:
        yield running
        assert running.alive


@pytest.fixture
def clf(sim: Pn532Simulator) -> Iterator[Frontend]:
    with reader(sim.path) as frontend:
        yield frontend


def sense_tag(clf: Frontend) -> Any:
    target = clf.sense(TYPE_A)
    assert target is not None
    tag = nfc.tag.activate(clf, target)
    assert tag is not None
    return tag


def sun_message(url: str) -> bytes:
    return b"U\x04" + url.removeprefix("https://").encode()


def test_opening_raises_the_line_speed_and_leaves_the_field_off(
    sim: Pn532Simulator, clf: Frontend
) -> None:
    assert clf.device.chipset_name == "PN532v1.6"
    assert sim.baud == 921600
    assert not sim.field_on


def test_an_empty_field_gives_nothing_for_any_technology(clf: Frontend) -> None:
    targets = [nfc.clf.RemoteTarget(brty) for brty in ("106A", "106B", "212F", "424F")]
    assert clf.sense(*targets, iterations=3, interval=0.001) is None


def test_a_sun_card_is_sensed_with_its_uid(sim: Pn532Simulator, clf: Frontend) -> None:
    sim.put(sun_card())
    target = clf.sense(TYPE_A)
    assert bytes(target.sdd_res) == UID
    assert (bytes(target.sens_res), bytes(target.sel_res)) == (b"\x44\x03", b"\x20")


def test_three_commands_read_a_sun_proof(sim: Pn532Simulator, clf: Frontend) -> None:
    card = sun_card(counter=99)
    sim.put(card)
    assert read_sun(sense_tag(clf)).endswith(sun_message(card.sun_url(100)))
    assert card.counter == 100


def test_nfcpys_own_ndef_reading_sees_the_same_url(sim: Pn532Simulator, clf: Frontend) -> None:
    card = sun_card()
    sim.put(card)
    record = sense_tag(clf).ndef.records[0]
    assert record.iri == card.sun_url(1)
    assert card.counter == 1


def test_the_whole_file_comes_in_chained_blocks(sim: Pn532Simulator, clf: Frontend) -> None:
    sim.put(sun_card())
    tag = sense_tag(clf)
    tag.send_apdu(0x00, 0xA4, 0x04, 0x00, NDEF_APPLICATION)
    tag.send_apdu(0x00, 0xA4, 0x00, 0x0C, NDEF_FILE)
    assert len(tag.send_apdu(0x00, 0xB0, 0x00, 0x00, mrl=256)) == 256


def test_a_card_that_asks_for_time_gets_it(sim: Pn532Simulator, clf: Frontend) -> None:
    sim.put(sun_card(wtx_per_apdu=2))
    assert read_sun(sense_tag(clf))


def test_the_counter_rises_per_activation_and_not_per_presence_check(
    sim: Pn532Simulator, clf: Frontend
) -> None:
    card = sun_card()
    sim.put(card)
    tag = sense_tag(clf)
    read_sun(tag)
    assert all(tag.is_present for _ in range(10))
    assert card.counter == 1
    assert read_sun(sense_tag(clf))
    assert card.counter == 2


def test_a_lifted_card_is_gone(sim: Pn532Simulator, clf: Frontend) -> None:
    sim.put(sun_card())
    tag = sense_tag(clf)
    read_sun(tag)
    sim.lift()
    assert not tag.is_present
    assert clf.sense(TYPE_A) is None


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_a_card_torn_between_commands_fails_and_can_be_read_again(
    sim: Pn532Simulator, clf: Frontend, answered: int
) -> None:
    card = sun_card()
    sim.put(card, tear_after_apdus=answered)
    tag = sense_tag(clf)
    with pytest.raises(nfc.tag.tt4.Type4TagCommandError):
        read_sun(tag)
    assert sim.card is None
    sim.put(card)
    assert read_sun(sense_tag(clf)).endswith(sun_message(card.sun_url(1)))


def test_a_card_torn_after_the_read_has_given_its_proof(sim: Pn532Simulator, clf: Frontend) -> None:
    card = sun_card()
    sim.put(card, tear_after_apdus=3)
    tag = sense_tag(clf)
    assert read_sun(tag).endswith(sun_message(card.sun_url(1)))
    assert not tag.is_present


def test_a_card_lifted_while_it_answers_has_used_its_counter() -> None:
    card = sun_card()
    with Pn532Simulator(rf_delay_ms=5) as sim, reader(sim.path) as clf:

        def lift_at_read(name: str, _at_s: float, details: dict[str, Any]) -> None:
            if name == "apdu" and details["name"] == "READ BINARY":
                sim.lift()

        sim.put(card)
        tag = sense_tag(clf)
        sim.on_event = lift_at_read
        with pytest.raises(nfc.tag.tt4.Type4TagCommandError):
            read_sun(tag)
        assert card.counter == 1
        sim.on_event = None
        sim.put(card)
        assert read_sun(sense_tag(clf)).endswith(sun_message(card.sun_url(2)))


def test_a_garbled_answer_is_repeated_without_a_second_read(
    sim: Pn532Simulator, clf: Frontend
) -> None:
    card = sun_card()
    sim.put(card)
    tag = sense_tag(clf)
    sim.disturb(1)
    assert read_sun(tag).endswith(sun_message(card.sun_url(1)))
    assert card.counter == 1


@pytest.mark.parametrize("r_nak", [b"\xb2", b"\xb3"])
def test_a_bare_presence_check_tells_noise_from_absence(
    sim: Pn532Simulator, clf: Frontend, r_nak: bytes
) -> None:
    card = sun_card()
    sim.put(card)
    read_sun(sense_tag(clf))
    sim.disturb(1)
    with pytest.raises(nfc.clf.TransmissionError):
        clf.exchange(r_nak, timeout=0.02)
    assert clf.exchange(r_nak, timeout=0.02)
    sim.lift()
    with pytest.raises(nfc.clf.TimeoutError):
        clf.exchange(r_nak, timeout=0.02)
    assert card.counter == 1


def test_a_clone_replays_what_it_recorded(sim: Pn532Simulator, clf: Frontend) -> None:
    url = sun_card().read_sun_url()
    sim.put(ReplayedCard(url.encode(), UID))
    for _ in range(2):
        assert read_sun(sense_tag(clf)).endswith(sun_message(url))


def test_an_unknown_application_is_a_status_and_not_a_break(
    sim: Pn532Simulator, clf: Frontend
) -> None:
    sim.put(sun_card())
    tag = sense_tag(clf)
    with pytest.raises(nfc.tag.tt4.Type4TagCommandError) as caught:
        tag.send_apdu(0x00, 0xA4, 0x04, 0x00, bytes.fromhex("A000000003"))
    assert caught.value.errno == 0x6A82
    assert read_sun(tag)


@pytest.mark.parametrize(("model", "product"), [("ntag213", "NTAG213"), ("ntag215", "NTAG215")])
def test_a_type_2_tag_gives_its_uid_and_presence(
    sim: Pn532Simulator, clf: Frontend, model: str, product: str
) -> None:
    sim.put(Ntag21x(UID, model))
    tag = sense_tag(clf)
    assert (bytes(tag.identifier), tag.product) == (UID, f"NXP {product}")
    assert tag.is_present
    sim.lift()
    assert not tag.is_present


def test_events_tell_the_story_without_an_identity(sim: Pn532Simulator, clf: Frontend) -> None:
    seen: list[tuple[str, float, dict[str, Any]]] = []
    sim.on_event = lambda *event: seen.append(event)
    sim.put(sun_card())
    read_sun(sense_tag(clf))
    sim.lift()
    assert [name for name, _, _ in seen] == [
        "card_put",
        "field_on",
        "card_activated",
        "apdu",
        "apdu",
        "apdu",
        "card_lifted",
    ]
    times = [at_s for _, at_s, _ in seen]
    assert times == sorted(times)
    assert UID.hex() not in repr(seen).lower()


def test_it_can_be_closed_and_opened_again(sim: Pn532Simulator) -> None:
    card = sun_card()
    sim.put(card)
    for _ in range(3):
        with reader(sim.path) as clf:
            assert read_sun(sense_tag(clf))
        assert sim.baud == 115200
        assert not sim.field_on
    assert card.counter == 3


def die_with_the_reader_open(path: str) -> None:
    """A process that opens the reader and goes without a word, as after kill -9."""
    program = "import os, sys; from tests.support.hwsim_fixtures import open_reader as o; "
    program += "o(sys.argv[1]); os._exit(9)"
    died = subprocess.run([sys.executable, "-c", program, path], timeout=60, check=False)
    assert died.returncode == 9


def test_a_reader_left_at_high_speed_opens_only_after_a_speed_reset(sim: Pn532Simulator) -> None:
    die_with_the_reader_open(sim.path)
    assert sim.baud == 921600
    with pytest.raises(OSError, match="timed out"):
        open_reader(sim.path)
    with serial.Serial(sim.path, 921600, timeout=ANSWER_TIMEOUT_S) as line:
        line.write(PREAMBLE + encode(b"\xd4\x10\x04"))
        assert line.read(6 + 9).endswith(encode(b"\xd5\x11"))
        line.write(ACK_FRAME)
        line.flush()
    sim.put(sun_card())
    with reader(sim.path) as clf:
        assert read_sun(sense_tag(clf))


def test_the_driver_aborts_a_command_by_ack_and_goes_on(sim: Pn532Simulator, clf: Frontend) -> None:
    chipset = clf.device.chipset
    chipset.rf_configuration(0x05, b"\x01\x00\xff")  # poll until the host gives up
    with pytest.raises(OSError, match="timed out"):
        chipset.command(0x4A, b"\x01\x00", timeout=0.05)
    sim.put(sun_card())
    assert read_sun(sense_tag(clf))


def test_noise_from_the_cable_before_a_command_is_harmless(
    sim: Pn532Simulator, clf: Frontend
) -> None:
    sim.put(sun_card())
    sim.send_noise(b"\x00\xff\x55\x00\x00\xff\x03")
    assert read_sun(sense_tag(clf))


def test_a_hung_reader_comes_back_by_its_reset_pin(sim: Pn532Simulator, clf: Frontend) -> None:
    sim.hang()
    with pytest.raises(OSError, match="Input/output error"):
        clf.sense(TYPE_A)
    sim.power_cycle()
    clf.close()
    sim.put(sun_card())
    with reader(sim.path) as again:
        assert read_sun(sense_tag(again))


def test_a_pulled_plug_is_an_error_and_not_a_missing_card() -> None:
    sim = Pn532Simulator().start()
    clf = open_reader(sim.path)
    sim.stop()
    sim.stop()
    with pytest.raises(PORT_GONE):
        clf.sense(TYPE_A)
    assert not sim.alive


def test_connect_waits_for_the_card_to_leave(sim: Pn532Simulator, clf: Frontend) -> None:
    card = sun_card()
    sim.put(card)
    connected, released = threading.Event(), threading.Event()

    def on_connect(tag: Any) -> bool:
        read_sun(tag)
        connected.set()
        return True

    def on_release(_tag: Any) -> bool:
        released.set()
        return True

    options = {"targets": ["106A"], "on-connect": on_connect, "on-release": on_release}
    thread = threading.Thread(target=clf.connect, kwargs={"rdwr": options})
    thread.start()
    assert connected.wait(ANSWER_TIMEOUT_S)
    sim.lift()
    assert released.wait(ANSWER_TIMEOUT_S)
    thread.join(ANSWER_TIMEOUT_S)
    assert card.counter == 1


def test_two_cards_at_once_are_refused(sim: Pn532Simulator) -> None:
    sim.put(sun_card())
    with pytest.raises(ValueError, match="already"):
        sim.put(sun_card())


def fresh_chip_answers(sim: Pn532Simulator, line: serial.Serial) -> bool:
    """Whether the chip answers after its reset and zeros that flush any unfinished frame."""
    sim.power_cycle()
    line.reset_input_buffer()
    line.write(bytes(300) + GET_FIRMWARE)
    return bool(line.read_until(FIRMWARE_ANSWER).endswith(FIRMWARE_ANSWER))


host_bytes = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=40).map(lambda data: encode(b"\xd4" + data)),
    st.tuples(st.sampled_from([0x10, 0x16, 0x32, 0x42, 0x4A]), st.binary(max_size=12)).map(
        lambda command: encode(bytes([0xD4, command[0]]) + command[1])
    ),
    st.just(ACK_FRAME),
)


@pytest.fixture(scope="module")
def abused() -> Iterator[Pn532Simulator]:
    with Pn532Simulator() as running:
        running.put(sun_card())
        yield running


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(host_bytes, max_size=12))
def test_no_bytes_from_a_host_kill_the_chip(abused: Pn532Simulator, parts: list[bytes]) -> None:
    with serial.Serial(abused.path, 115200, timeout=1.0) as line:
        for part in parts:
            line.write(part)
        # What is still on its way may put a fresh chip to sleep again, hence more than one try.
        assert any(fresh_chip_answers(abused, line) for _ in range(3))
    assert abused.alive
