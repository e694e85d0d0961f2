"""The console's wire format, pure: bytes in, lines and frames out, and back.

A person types a line and reads text. A program sends a frame, which is one line too:

    #TR1 <id> <length> <crc32> <json>\\n

`id` names the request that an answer belongs to, `length` counts the bytes of the JSON in decimal,
`crc32` is the CRC-32 (ISO-HDLC, as in zlib) of `<id> <json>` in 8 hex digits: a disturbed id must
not make one question's answer another one's. The JSON is ASCII without line ends.
Serial lines carry boot messages, echoes and noise: a frame is believed only when length and
checksum hold, and whatever came before it on its line is skipped.

Answers for limits and for finding back after noise. It knows no command.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from taprail_common.errors import InputError

MAX_JSON_BYTES: Final = 64 * 1024
_MARK: Final = b"#TR1 "
_HEADER = re.compile(rb"#TR1 ([A-Za-z0-9]{1,16}) ([0-9]{1,6}) ([0-9a-f]{8}) ")
# Mark, id, length and checksum with their spaces: 5 + 17 + 7 + 9.
_MAX_LINE_BYTES: Final = MAX_JSON_BYTES + 38
# A line may hold the mark by chance or by echo; looking at more than this many is wasted time.
_MAX_MARKS: Final = 16
# A person types less; to read more as typed, character by character, would hold up a tap.
MAX_TYPED_BYTES: Final = 1024
_BACKSPACES: Final = frozenset("\b\x7f")


@dataclass(frozen=True, slots=True)
class Line:
    """What a person typed."""

    text: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A request or an answer of a program."""

    id: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Garbled:
    """A line that was meant as a frame and cannot be believed, or is longer than any may be."""

    reason: str


Item: TypeAlias = Line | Frame | Garbled


def encode(frame: Frame) -> bytes:
    """The frame as one line; raises InputError when it is over the limit."""
    body = json.dumps(frame.body, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    data = body.encode("ascii")
    if len(data) > MAX_JSON_BYTES:
        raise InputError("frame", f"is {len(data)} bytes long, at most {MAX_JSON_BYTES} may be")
    name = frame.id.encode("ascii")
    return b"%s%s %d %08x %s\n" % (_MARK, name, len(data), _crc(name, data), data)


class Decoder:
    """Cuts a stream of bytes into items; holds at most one line of the longest frame."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._is_overlong = False

    def feed(self, data: bytes) -> list[Item]:
        """Take bytes as they come, in pieces of any size; gives the items that are complete."""
        items: list[Item] = []
        *complete, rest = data.split(b"\n")
        for part in complete:
            self._add(part)
            items += self._end_line()
        self._add(rest)
        return items

    def _add(self, part: bytes) -> None:
        if len(self._pending) + len(part) > _MAX_LINE_BYTES:
            self._is_overlong = True
            self._pending.clear()
        if not self._is_overlong:
            self._pending += part

    def _end_line(self) -> list[Item]:
        line, was_overlong = bytes(self._pending), self._is_overlong
        self._pending.clear()
        self._is_overlong = False
        if was_overlong:
            return [Garbled(f"a line may have {_MAX_LINE_BYTES} bytes")]
        return _read_line(line.removesuffix(b"\r"))


def _read_line(line: bytes) -> list[Item]:
    reason = ""
    at = line.find(_MARK)
    for _ in range(_MAX_MARKS):
        if at < 0:
            break
        try:
            return [_read_frame(line[at:])]
        except InputError as exc:
            reason = reason or str(exc)
        at = line.find(_MARK, at + 1)
    if reason:
        return [Garbled(reason)]
    if len(line) > MAX_TYPED_BYTES:
        return [Garbled(f"a typed line may have {MAX_TYPED_BYTES} bytes")]
    text = _typed(line.decode("utf-8", "replace"))
    return [Line(text)] if text else []


def _read_frame(data: bytes) -> Frame:
    header = _HEADER.match(data)
    if header is None:
        raise InputError("frame", "has no readable header")
    body = data[header.end() :]
    if len(body) != int(header[2]) or len(body) > MAX_JSON_BYTES:
        raise InputError("frame", "has another length than it says")
    if _crc(header[1], body) != int(header[3], 16):
        raise InputError("frame", "does not match its checksum")
    return Frame(header[1].decode("ascii"), _read_object(body))


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("frame", "holds no JSON") from None
    if not isinstance(value, dict):
        raise InputError("frame", "holds no JSON object")
    return value


def _typed(text: str) -> str:
    """The line as its writer saw it: backspaces carried out, control characters left out."""
    kept: list[str] = []
    for character in text:
        if character in _BACKSPACES:
            del kept[-1:]
        elif character.isprintable():
            kept.append(character)
    return "".join(kept).strip()


def _crc(name: bytes, data: bytes) -> int:
    return zlib.crc32(b"%s %s" % (name, data))
