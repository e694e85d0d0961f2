"""A PC/SC reader with room for one card, as programs see it through the real pcscd.

Answers for the vpcd driver's line (two bytes of length, then the message; one byte is an order, all
else an APDU) and for its thread; what the reader does with the card is in `coupler`. vpcd has no
way to say "this card does not answer", so that is said by one byte, which no card can answer: a
status word has two.
Source: virtualsmartcard/src/vpcd/vpcd.h of frankmorgner/vsmartcard 3.3 for orders and form.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from taprail_hwsim.cards.base import Card
from taprail_hwsim.pcsc.coupler import Coupler
from taprail_hwsim.pcsc.daemon import Pcscd
from taprail_hwsim.pn532.rf_field import RfField

READER_NAME: Final = "Virtual PCD 00 00"
_POWER_OFF, _POWER_ON, _RESET, _GET_ATR = 0x00, 0x01, 0x02, 0x04
_LENGTH_BYTES: Final = 2
_NO_ANSWER: Final = b"\x00"
_EMPTY_S: Final = 0.5
"""pcscd looks into a slot every 0.4 s. A card that comes before it has seen the last one leave is
never noticed at all, so hands are as slow here as they are elsewhere."""
_RETRY_S: Final = 0.05
"""How often the reader looks again for a card that could not be activated."""
_JOIN_TIMEOUT_S: Final = 5.0

EventCallback = Callable[[str, float, dict[str, Any]], None]


class PcscSimulator:
    """A reader of a running `Pcscd`. Its methods may be called from any thread; `on_event` and
    `rf_delay_ms` are those of the PN532's simulator."""

    def __init__(
        self,
        daemon: Pcscd,
        *,
        on_event: EventCallback | None = None,
        rf_delay_ms: float = 0.0,
    ) -> None:
        self.on_event = on_event
        self._daemon = daemon
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._field = RfField(self._emit)
        self._coupler = Coupler(self._field, self._wait, rf_delay_s=rf_delay_ms / 1e3)
        self._line: socket.socket | None = None
        self._empty_until_s = 0.0
        self._hung = False
        self._stopping = False
        self._plugged = True
        self._thread: threading.Thread | None = None

    def start(self) -> PcscSimulator:
        """Begin to look for cards."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pcsc-simulator", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Take card and reader's thread away. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._changed:
            self._stopping = True
            self._hang_up()
        thread.join(_JOIN_TIMEOUT_S)
        self._field.lift()

    def __enter__(self) -> PcscSimulator:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def card(self) -> Card | None:
        with self._lock:
            return self._field.card

    def put(self, card: Card, tear_after_apdus: int | None = None) -> None:
        """A card enters the field; it leaves by itself after that many answered APDUs."""
        with self._changed:
            self._field.put(card, tear_after_apdus)
            self._changed.notify_all()

    def put_beside(self, card: Card) -> None:
        """One more card enters; this reader goes on with the one that it has."""
        with self._lock:
            self._field.put_beside(card)

    def lift(self) -> None:
        """What is there leaves."""
        with self._changed:
            self._field.lift()
            self._hang_up()

    def disturb(self, exchanges: int = 1) -> None:
        """Garble the next card answers on the air."""
        with self._lock:
            self._field.disturb(exchanges)

    def hang(self) -> None:
        """The reader stops answering pcscd until `power_cycle`, whatever it is asked."""
        with self._changed:
            self._hung = True
            self._changed.notify_all()

    def power_cycle(self) -> None:
        """Take the reader's power away and give it back: a card on it begins anew."""
        with self._changed:
            self._hung = False
            self._hang_up()

    def restart_daemon(self) -> None:
        """pcscd ends and comes back, as in an upgrade; the card on the reader stays."""
        with self._changed:
            self._hang_up()
            self._daemon.start()
            self._plugged = True
            self._changed.notify_all()

    def unplug(self) -> None:
        """pcscd has no reader any more."""
        with self._changed:
            self._plugged = False
            self._hang_up()
            self._daemon.start(with_reader=False)

    def plug_in(self) -> None:
        """The reader is back."""
        self.restart_daemon()

    def _emit(self, name: str, details: dict[str, Any]) -> None:
        if self.on_event is not None:
            self.on_event(name, time.monotonic(), details)

    def _hang_up(self) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):  # pcscd may have been faster
                self._line.shutdown(socket.SHUT_RDWR)
        self._changed.notify_all()

    # --- the reader's thread ------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                if self._field.card is None or not self._plugged:
                    self._changed.wait()
                    continue
                early_s = self._empty_until_s - time.monotonic()
                if early_s > 0:
                    self._changed.wait(early_s)
                    continue
                atr = self._coupler.power_up()
                if atr is None or self._field.card is None:
                    self._changed.wait(_RETRY_S)
                    continue
                self._line = self._daemon.insert()
            with self._line:
                self._serve(self._line, atr)
            with self._lock:
                self._line, self._empty_until_s = None, time.monotonic() + _EMPTY_S

    def _serve(self, line: socket.socket, atr: bytes) -> None:
        """Be the card in the slot until it is lifted, given up, or pcscd closes the line."""
        while (message := _receive(line)) is not None:
            with self._changed:
                while self._hung and not self._stopping:
                    self._changed.wait()
                if self._field.card is None:
                    return
                if message == bytes([_GET_ATR]):
                    answer: bytes | None = atr
                elif message == bytes([_POWER_OFF]):
                    self._coupler.power_down()
                    continue
                elif message in {bytes([_POWER_ON]), bytes([_RESET])}:
                    atr = self._coupler.power_up() or b""
                    continue
                else:
                    answer = self._coupler.transmit(message)
                gone = self._field.card is None
            if not _send(line, answer or _NO_ANSWER) or gone:
                return

    def _wait(self, duration_s: float) -> bool:
        """Give a card its time; False when it has left meanwhile."""
        session = self._field.session
        self._changed.wait_for(lambda: self._stopping or self._field.session != session, duration_s)
        return not self._stopping and self._field.session == session


def _receive(line: socket.socket) -> bytes | None:
    head = _read(line, _LENGTH_BYTES)
    return None if head is None else _read(line, int.from_bytes(head, "big"))


def _read(line: socket.socket, count: int) -> bytes | None:
    """So many bytes; None at the end of the line."""
    data = b""
    while len(data) < count:
        try:
            # Without this, Nagle's algorithm and delayed acknowledgements cost 40 ms per message.
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            part = line.recv(count - len(data))
        except OSError:
            return None
        if not part:
            return None
        data += part
    return data


def _send(line: socket.socket, message: bytes) -> bool:
    try:
        line.sendall(len(message).to_bytes(_LENGTH_BYTES, "big") + message)
    except OSError:
        return False
    return True
