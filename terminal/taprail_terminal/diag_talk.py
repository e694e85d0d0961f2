"""A conversation with a terminal's console: one question, one answer, within its time.

Answers for lines that are noisy or get lost: a question that only looks is asked again once the
cable is back; one that changes something never is, since it may have been done. What changes the
terminal is signed by the technician's key, for the one terminal that this conversation is with.
"""

from __future__ import annotations

import difflib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import serial
from nacl.signing import SigningKey

from taprail_common.errors import LinkError, OperatorError
from taprail_common.ids import IDENTIFIER_PATTERN
from taprail_terminal.console.commands import COMMANDS, find
from taprail_terminal.console.conversation import NOBODY
from taprail_terminal.console.frames import Decoder, Frame, encode
from taprail_terminal.console.proof import prove
from taprail_terminal.diag_line import POLL_S, Line, Place

_IDENTIFIER: Final = re.compile(IDENTIFIER_PATTERN, re.ASCII)
_READ_BYTES: Final = 4096
_MAX_SENDS: Final = 3
"""A request that noise has garbled is sent again this often in all."""
_ON_THE_WAY_S: Final = 5.0
"""On top of a command's own time: 64 KiB take six seconds at 115200 baud, most answers a tenth."""
_LOOK_EVERY_S: Final = 0.25
_HELLO_S: Final = 1.0

Answer = Mapping[str, Any]
Tell = Callable[[str], None]


class LineLostError(LinkError):
    """The cable was pulled, or the terminal is gone."""

    code = "line_lost"


def plain_words(words: Sequence[str]) -> list[str]:
    """A command as the terminal reads it; raises OperatorError for one that nobody knows."""
    found = find(words)
    if found is None:
        meant = difflib.get_close_matches(" ".join(words[:2]), COMMANDS, n=1, cutoff=0.5)
        hint = f"perhaps {meant[0]!r} is meant; " if meant else ""
        raise OperatorError(
            f"no command {' '.join(words)[:60]!r}", fix=f"{hint}all of them: taprail diag help"
        )
    name, args = found
    return [*name.split(), *args]


def is_change(words: Sequence[str]) -> bool:
    """Whether a command changes the terminal, as far as this program knows it."""
    found = find(words)
    return found is not None and COMMANDS[found[0]].changes(found[1])


def time_of(words: Sequence[str]) -> float:
    """How long the answer to a command may take, in seconds."""
    found = find(words)
    return _ON_THE_WAY_S + (COMMANDS[found[0]].timeout_s if found else 0.0)


class Talk:
    """A conversation with the terminal at one place. `tell` hears what becomes of the line."""

    def __init__(
        self,
        place: Place,
        tell: Tell,
        key: SigningKey | None = None,
        terminal_id: str | None = None,
    ) -> None:
        self.place = place
        self.terminal_id = terminal_id
        """Whom we talk to; nothing is signed for anybody else."""
        self.tell = tell
        self._key = key
        self._line: Line | None = None

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def meet(self, within_s: float = 10.0) -> str:
        """Ask who is there; gives its name. Raises LinkError or OperatorError."""
        answer = self.ask(["version"], within_s)
        self.terminal_id = _terminal_of(answer)
        return self.terminal_id

    def ask(self, words: Sequence[str], within_s: float | None = None) -> Answer:
        """Give a command; raises LinkError or OperatorError. A time limit of None is the
        command's own; then a lost line is waited for as long as it takes."""
        limit_s = time_of(words) if within_s is None else within_s
        until_s = time.monotonic() + limit_s
        while True:
            try:
                left_s = until_s - time.monotonic()
                return self._ask(words, limit_s if within_s is None else max(POLL_S, left_s))
            except LineLostError:
                self.close()
                if is_change(words):
                    raise LineLostError(
                        "the line was lost before the answer: it may have been done or not",
                        fix="plug the cable in and ask: changes",
                    ) from None
                self._wait_for_line(None if within_s is None else until_s)

    def _ask(self, words: Sequence[str], within_s: float) -> Answer:
        if self._line is None:
            self._line = self.place.open()
        until_s = time.monotonic() + within_s
        name, args = find(words) or (words[0], words[1:])
        request: dict[str, Any] = {"command": name, "args": list(args)}
        if is_change(words):
            request |= self._signed(self._line, words)
        try:
            return exchange(self._line, request, until_s - time.monotonic())
        except NoAnswerError as exc:
            holder = self.place.holder()
            if holder is None:
                raise
            raise LinkError(
                f"{exc.message}, and {holder} listens on the same port", fix=f"kill {holder.pid}"
            ) from exc

    def _signed(self, line: Line, words: Sequence[str]) -> dict[str, str]:
        if self._key is None:
            raise OperatorError(
                "this command changes the terminal",
                fix="sign it with --key FILE; make one: taprail diag key make FILE",
            )
        asked = exchange(line, {"command": "challenge"}, time_of(["challenge"])).get("data", {})
        terminal_id, nonce = str(asked.get("terminalId", "")), str(asked.get("nonce", ""))
        if self.terminal_id not in {None, terminal_id}:
            raise OperatorError(
                f"the challenge is of terminal {terminal_id!r}, not of {self.terminal_id!r}",
                fix="find out what the cable is plugged into; nothing was signed",
            )
        self.terminal_id = terminal_id
        return prove(self._key, terminal_id, nonce, words).to_json()

    def _wait_for_line(self, until_s: float | None) -> None:
        """Until somebody answers again; raises LineLostError when the time is up."""
        self.tell(f"{self.place} was lost: waiting for it (Ctrl-C to give up)")
        while until_s is None or time.monotonic() < until_s:
            if self.place.is_there() and (name := self._try_again()) is not None:
                self.tell(f"{self.place} is back: terminal {name}")
                if self.terminal_id not in {None, name}:
                    raise OperatorError(
                        f"this is not {self.terminal_id!r} any more", fix="start anew with this one"
                    )
                return
            time.sleep(_LOOK_EVERY_S)
        raise LineLostError(
            "the line was lost before the answer was complete", fix="check the cable, ask again"
        )

    def _try_again(self) -> str | None:
        """Who answers now; None when nobody does."""
        try:
            self._line = self.place.open()
            return _terminal_of(exchange(self._line, {"command": "version"}, _HELLO_S))
        except (LinkError, OperatorError):
            self.close()
            return None


class NoAnswerError(LinkError):
    """Nothing came in time."""

    code = "no_answer"


def exchange(line: Line, request: Mapping[str, Any], within_s: float) -> Answer:
    """Send a request over an open line; gives the answer's body. Raises LinkError."""
    frame = Frame(secrets.token_hex(4), dict(request))
    until_s = time.monotonic() + within_s
    sends_left = _MAX_SENDS - 1
    try:
        _send(line, frame, within_s)
        for heard in _frames(line, until_s):
            if heard.id == frame.id and "exitCode" in heard.body:
                return heard.body
            if heard.id == NOBODY and not sends_left:
                return heard.body
            if heard.id == NOBODY:
                sends_left -= 1
                _send(line, frame, within_s)
    except (serial.SerialTimeoutException, TimeoutError):
        pass
    except OSError as exc:
        raise LineLostError(
            "the line was lost before the answer was complete", fix="check the cable, ask again"
        ) from exc
    raise NoAnswerError(
        f"no answer in {within_s:.3g} s",
        fix="is the terminal on, and does its [console] port name the other end of this cable?",
    )


def ask(line: Line, command: str, within_s: float) -> Answer:
    """Give a command that only looks, over an open line."""
    return exchange(line, {"command": command}, within_s)


def _send(line: Line, request: Frame, within_s: float) -> None:
    line.write_timeout = max(POLL_S, within_s)
    # The line end before it finishes whatever half a line the far end may have heard.
    line.write(b"\n" + encode(request))


def _frames(line: Line, until_s: float) -> Iterator[Frame]:
    decoder = Decoder()
    line.timeout = POLL_S
    while time.monotonic() < until_s:
        data = line.read(min(_READ_BYTES, max(1, line.in_waiting)))
        yield from (item for item in decoder.feed(data) if isinstance(item, Frame))


def _terminal_of(answer: Answer) -> str:
    data = answer.get("data")
    name = str(data.get("terminalId", "?")) if isinstance(data, dict) else "?"
    return name if _IDENTIFIER.fullmatch(name) else "?"
