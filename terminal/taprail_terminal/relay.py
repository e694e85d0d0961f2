"""Carries commands between another program and a card, and understands none of them.

For writing cards: the program that holds the keys asks here, line by line; this side holds none.
Answers for one request at a time, as JSON on a line of its own:

    {"do": "card", "wait_s": 30}       → {"uid": "04…", "iso_dep": true}, or {"uid": null}
    {"do": "apdu", "apdu": "00A4…"}    → {"apdu": "9000"}

A failure is {"error": code, "message": …}; the dialogue with the card is over then, and `card`
begins another. Each `card` starts the card anew. The end of the input is the end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Final

from taprail_common.errors import InputError, TapRailError
from taprail_terminal.readers.base import Driver

MAX_LINE_BYTES: Final = 2_048
"""A short command APDU has 261 bytes, in hex with its frame about 550."""
MAX_APDU_BYTES: Final = 261
MAX_WAIT_S: Final = 600
SESSION_S: Final = 30.0
"""For one dialogue with a card: about forty exchanges, each a few ten milliseconds."""


class TwoCardsError(TapRailError):
    """Which of them would be written is chance."""

    code = "two_cards"


_Say = Callable[[dict[str, Any]], None]


def relay(driver: Driver, requests: Iterable[bytes], say: _Say) -> None:
    """Serve requests until they end. Raises PartError when the reader cannot be opened."""
    reader = driver.open()
    try:
        say({"reader": reader})
        for line in requests:
            try:
                say(_answer(driver, _parsed(line)))
            except TapRailError as exc:
                say({"error": exc.code, "message": str(exc)})
    finally:
        driver.close()


def bounded_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines of a stream, each cut off where no request is that long."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        yield line


def _parsed(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise InputError("request", f"has more than {MAX_LINE_BYTES} bytes")
    try:
        request = json.loads(line)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise InputError("request", "must be a JSON object on one line")
    return request


def _answer(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    match request:
        case {"do": "card", "wait_s": int(wait_s)} if 0 < wait_s <= MAX_WAIT_S:
            return _find_card(driver, wait_s)
        case {"do": "apdu", "apdu": str(text)}:
            return {"apdu": driver.exchange(_apdu(text)).hex()}
    raise InputError("request", "is none that is known here")


def _find_card(driver: Driver, wait_s: int) -> dict[str, Any]:
    until_s = time.monotonic() + wait_s
    driver.rest()  # a card that lies there already begins anew
    while time.monotonic() < until_s:
        card = driver.wait_for_card()
        if card is None:
            continue
        if card.iso_dep:
            driver.start_session(budget_s=SESSION_S)
        if driver.sees_another():
            raise TwoCardsError("two cards lie on the reader", fix="take one of them away")
        return {"uid": card.uid.hex(), "iso_dep": card.iso_dep}
    return {"uid": None}


def _apdu(text: str) -> bytes:
    try:
        apdu = bytes.fromhex(text)
    except ValueError:
        apdu = b""
    if not 4 <= len(apdu) <= MAX_APDU_BYTES:
        raise InputError("apdu", f"must be the hex of 4 to {MAX_APDU_BYTES} bytes")
    return apdu
