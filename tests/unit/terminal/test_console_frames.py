"""The console's wire format: whatever comes over the line, frames are found, none is invented."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_common.errors import InputError
from taprail_terminal.console.frames import (
    MAX_JSON_BYTES,
    Decoder,
    Frame,
    Garbled,
    Item,
    Line,
    encode,
)

IDS = st.from_regex(r"[A-Za-z0-9]{1,16}", fullmatch=True)
BODIES = st.dictionaries(
    st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.text(max_size=40)
)
FRAMES = st.builds(Frame, IDS, BODIES)


def _decode(data: bytes) -> list[Item]:
    return Decoder().feed(data)


def test_golden_frame() -> None:
    body = b'{"command":"status"}'
    # CRC-32/ISO-HDLC has the check value cbf43926 for "123456789": the same function as in zlib.
    assert zlib.crc32(b"123456789") == 0xCBF43926
    golden = b"#TR1 a1 20 %08x %s\n" % (zlib.crc32(b"a1 " + body), body)
    assert encode(Frame("a1", {"command": "status"})) == golden
    assert golden.startswith(b"#TR1 a1 20 63022f66 ")


@given(FRAMES)
def test_a_frame_comes_back_as_it_was(frame: Frame) -> None:
    assert _decode(encode(frame)) == [frame]


@given(st.lists(FRAMES, min_size=1, max_size=4))
def test_bytes_may_come_one_at_a_time(frames: list[Frame]) -> None:
    decoder = Decoder()
    data = b"".join(map(encode, frames))
    items = [item for byte in data for item in decoder.feed(bytes([byte]))]
    assert items == frames


@given(FRAMES, st.binary(max_size=200), st.data())
def test_any_split_gives_the_same(frame: Frame, noise: bytes, data: st.DataObject) -> None:
    stream = noise + b"\n" + encode(frame)
    cut = data.draw(st.integers(0, len(stream)))
    decoder = Decoder()
    assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == _decode(stream)


@given(FRAMES, st.binary(max_size=300).filter(lambda noise: b"\n" not in noise))
def test_noise_before_a_frame_on_its_line_is_skipped(frame: Frame, noise: bytes) -> None:
    # Up to 16 marks in the noise; more are not worth looking at.
    assert frame in _decode(noise + encode(frame))


@given(st.binary(max_size=2000))
def test_noise_alone_never_raises_and_never_is_a_frame(noise: bytes) -> None:
    items = _decode(noise + b"\n")
    assert not any(isinstance(item, Frame) for item in items)


@given(FRAMES, st.data())
def test_one_flipped_bit_is_never_believed(frame: Frame, data: st.DataObject) -> None:
    sent = bytearray(encode(frame))
    place = data.draw(st.integers(0, len(sent) - 2))
    sent[place] ^= 1 << data.draw(st.integers(0, 7))
    after = Frame("next", {"command": "status"})
    items = _decode(bytes(sent) + encode(after))
    assert not any(isinstance(item, Frame) for item in items[:-1])
    assert items[-1] == after


def test_a_wrong_checksum_is_said() -> None:
    sent = encode(Frame("a", {"x": 1})).replace(b'{"x":1}', b'{"x":2}')
    assert _decode(sent) == [Garbled("frame: does not match its checksum")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"#TR1 ", "frame: has no readable header"),
        (b"#TR1 a 2 zzzzzzzz {}", "frame: has no readable header"),
        (b"#TR1 a 3 %08x {}" % zlib.crc32(b"a {}"), "frame: has another length than it says"),
        (b"#TR1 a 2 %08x []" % zlib.crc32(b"a []"), "frame: holds no JSON object"),
        (b"#TR1 a 2 %08x {]" % zlib.crc32(b"a {]"), "frame: holds no JSON"),
    ],
)
def test_a_broken_frame_says_how(line: bytes, reason: str) -> None:
    assert _decode(line + b"\n") == [Garbled(reason)]


def test_deeply_nested_json_is_refused_not_fatal() -> None:
    body = b'{"a":' + b"[" * 30_000
    sent = b"#TR1 a %d %08x %s\n" % (len(body), zlib.crc32(b"a " + body), body)
    assert _decode(sent) == [Garbled("frame: holds no JSON")]


def test_an_overlong_line_is_dropped_and_the_next_is_read() -> None:
    decoder = Decoder()
    items: list[Item] = []
    for _ in range(40):
        items += decoder.feed(b"x" * 4096)
    assert items == []
    frame = Frame("a", {"command": "status"})
    first, second = decoder.feed(b"\n" + encode(frame))
    assert isinstance(first, Garbled)
    assert second == frame


def test_memory_is_bounded_however_long_a_line_is() -> None:
    decoder = Decoder()
    for _ in range(1000):
        decoder.feed(b"#TR1 a " * 600)
    assert len(decoder._pending) <= MAX_JSON_BYTES + 38


def test_the_largest_frame_passes_and_one_byte_more_does_not() -> None:
    room = MAX_JSON_BYTES - len(json.dumps({"x": ""}, separators=(",", ":")))
    largest = Frame("a" * 16, {"x": "y" * room})
    assert _decode(encode(largest)) == [largest]
    with pytest.raises(InputError, match="at most 65536"):
        encode(Frame("a", {"x": "y" * (room + 1)}))


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (b"status\r\n", "status"),
        (b"  stauts\b\b\btus \n", "status"),
        (b"sta\x7f\x7ftatus\n", "status"),
        (b"\x1b[Ahelp\n", "[Ahelp"),
        (b"\xffhelp\n", "�help"),
    ],
)
def test_a_typed_line_is_read_as_its_writer_saw_it(typed: bytes, text: str) -> None:
    assert _decode(typed) == [Line(text)]


def test_an_empty_line_is_nothing() -> None:
    assert _decode(b"\r\n\n  \n") == []


@given(st.lists(st.binary(max_size=300) | FRAMES.map(encode), max_size=8), st.data())
def test_a_frame_that_begins_a_line_is_found_in_any_noise(
    parts: list[bytes], data: st.DataObject
) -> None:
    """And what is held meanwhile is bounded, whatever comes in pieces of whatever size."""
    wanted = data.draw(FRAMES)
    stream = b"\n".join([*parts, b"\n" + encode(wanted)])
    decoder, items = Decoder(), list[Item]()
    while stream:
        size = data.draw(st.integers(1, 64))
        items += decoder.feed(stream[:size])
        stream = stream[size:]
        assert len(decoder._pending) <= MAX_JSON_BYTES + 38
    assert items[-1] == wanted


@given(FRAMES, IDS)
def test_no_answer_is_taken_for_another_questions(frame: Frame, other: str) -> None:
    sent = encode(frame)
    swapped = sent.replace(frame.id.encode(), other.encode(), 1)
    believed = [item for item in _decode(swapped) if isinstance(item, Frame)]
    assert believed == ([frame] if other == frame.id else [])
