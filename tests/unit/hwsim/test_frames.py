"""The PN532 frame codec: golden frames of UM0701-02, any cut, any noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_hwsim.pn532.frames import (
    ACK_FRAME,
    EXTENDED_MAX_BYTES,
    SYNTAX_ERROR,
    Control,
    FrameDecoder,
    encode,
)

GET_FIRMWARE = bytes.fromhex("0000FF02FED4022A00")
FIRMWARE_ANSWER = bytes.fromhex("0000FF06FAD50332010607E800")
NACK_FRAME = bytes.fromhex("0000FFFF0000")

payloads = st.binary(min_size=1, max_size=EXTENDED_MAX_BYTES)


def test_encode_gives_the_frames_of_the_manual() -> None:
    assert encode(bytes.fromhex("D402")) == GET_FIRMWARE
    assert encode(bytes.fromhex("D50332010607")) == FIRMWARE_ANSWER
    assert encode(SYNTAX_ERROR) == bytes.fromhex("0000FF01FF7F8100")


def test_a_frame_over_255_bytes_is_extended() -> None:
    assert encode(bytes(255))[3:5] == b"\xff\x01"
    assert encode(bytes(256))[3:8] == bytes.fromhex("FFFF0100FF")


@pytest.mark.parametrize("size", [0, EXTENDED_MAX_BYTES + 1])
def test_encode_refuses_what_no_frame_can_carry(size: int) -> None:
    with pytest.raises(ValueError, match="1 to 265"):
        encode(bytes(size))


def test_controls_are_told_from_payloads() -> None:
    stream = ACK_FRAME + GET_FIRMWARE + NACK_FRAME
    assert FrameDecoder().feed(stream) == [Control.ACK, b"\xd4\x02", Control.NACK]


@given(st.lists(payloads, min_size=1, max_size=5), st.integers(1, 40), st.integers(0, 30))
def test_any_payloads_survive_any_cut_and_preamble(
    sent: list[bytes], chunk: int, preamble: int
) -> None:
    stream = b"".join(bytes(preamble) + encode(payload) for payload in sent)
    decoder = FrameDecoder()
    got = [
        frame
        for at in range(0, len(stream), chunk)
        for frame in decoder.feed(stream[at : at + chunk])
    ]
    assert got == sent


@given(st.binary(max_size=600))
def test_after_noise_and_a_long_preamble_the_next_frame_arrives(noise: bytes) -> None:
    decoder = FrameDecoder()
    decoder.feed(noise + bytes(EXTENDED_MAX_BYTES + 8))
    assert decoder.feed(GET_FIRMWARE)[-1:] == [b"\xd4\x02"]


@pytest.mark.parametrize("position", [3, 4, 5, 6, 7])
def test_a_flipped_bit_makes_no_frame(position: int) -> None:
    broken = bytearray(GET_FIRMWARE)
    broken[position] ^= 0x40
    decoder = FrameDecoder()
    assert decoder.feed(bytes(broken) + bytes(300)) == []
    assert decoder.feed(GET_FIRMWARE) == [b"\xd4\x02"]


def test_an_oversized_extended_length_is_not_waited_for() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(bytes.fromhex("0000FFFFFF010AF5") + GET_FIRMWARE) == [b"\xd4\x02"]
