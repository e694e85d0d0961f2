"""Serves the chip on a pseudo-terminal, so that an unchanged driver can open it as a serial port.

Answers for file descriptors, the service thread, the clock and locking; all behaviour is in `chip`.
"""

from __future__ import annotations

import os
import select
import termios
import threading
import time
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from taprail_hwsim.cards.base import Card
from taprail_hwsim.pn532.chip import Pn532Chip
from taprail_hwsim.pn532.rf_field import RfField

READ_BYTES: Final = 4096
JOIN_TIMEOUT_S: Final = 5.0
_OSPEED: Final = 5  # index in the list that termios.tcgetattr gives
_SPEEDS: Final = {
    getattr(termios, f"B{baud}"): baud
    for baud in (9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)
}

EventCallback = Callable[[str, float, dict[str, Any]], None]


class Pn532Simulator:
    """A PN532 reader at `path`, with room for one card before its antenna.

    `rf_delay_ms` is the air time of one exchange (activation, RATS, each block); with
    `model_line_speed` serial bytes take their time too. Like the real chip it starts asleep: the
    host has to send a long preamble first, which drivers do.

    `on_event(name, monotonic_s, details)` hears field_on, field_off, card_put, card_lifted,
    card_activated and apdu. It is called in order, under the simulator's lock, from whichever
    thread caused the event: it may call `put` and `lift`, and must not wait for another thread.
    All methods may be called from any thread.
    """

    def __init__(
        self,
        rf_delay_ms: float = 0.0,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        *,
        model_line_speed: bool = False,
        on_event: EventCallback | None = None,
    ) -> None:
        if rf_delay_ms < 0:
            raise ValueError("rf_delay_ms must be 0 or more")
        self.on_event = on_event
        self._clock = clock
        self._lock = threading.RLock()
        self._field = RfField(self._emit)
        self._chip = Pn532Chip(
            self._field,
            rf_delay_s=rf_delay_ms / 1e3,
            model_line_speed=model_line_speed,
            seed=seed,
        )
        self._thread: threading.Thread | None = None
        self._path: str | None = None

    def start(self) -> Pn532Simulator:
        """Open the pseudo-terminal and serve it. Raises RuntimeError when already started."""
        if self._thread is not None:
            raise RuntimeError("the simulator runs already")
        # Our own hold on the slave end keeps the line alive while no host has it open.
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._path = os.ttyname(self._slave)
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="pn532-simulator", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread and close the line, as pulling the reader's plug does. Idempotent."""
        if self._thread is None:
            return
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(JOIN_TIMEOUT_S)
        if self._thread.is_alive():
            raise RuntimeError("the simulator's thread does not end")
        self._thread = None
        for descriptor in (self._master, self._slave, self._wake):
            os.close(descriptor)

    def __enter__(self) -> Pn532Simulator:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def path(self) -> str:
        """The serial port to open, for instance /dev/pts/3."""
        if self._path is None:
            raise RuntimeError("the simulator was never started")
        return self._path

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def card(self) -> Card | None:
        with self._lock:
            return self._field.card

    @property
    def field_on(self) -> bool:
        with self._lock:
            return self._field.on

    @property
    def baud(self) -> int:
        """The chip's own line speed."""
        with self._lock:
            return self._chip.baud

    def put(self, card: Card, tear_after_apdus: int | None = None) -> None:
        """A card enters the field; it leaves by itself after that many answered APDUs.

        0 tears it right after activation. Raises ValueError when a card is there already.
        """
        with self._lock:
            self._field.put(card, tear_after_apdus)

    def put_beside(self, card: Card) -> None:
        """One more card enters, as in a wallet. Raises ValueError when two are there."""
        with self._lock:
            self._field.put_beside(card)

    def lift(self) -> None:
        """What is there leaves. An exchange under way ends with the time-out status 01h."""
        with self._lock:
            self._field.lift()

    def lift_one(self, card: Card) -> None:
        """Of two cards this one leaves."""
        with self._lock:
            self._field.lift_one(card)

    def disturb(self, exchanges: int = 1) -> None:
        """Garble the next card answers on the air: the card is there, but cannot be understood."""
        with self._lock:
            self._field.disturb(exchanges)

    def hang(self) -> None:
        """The chip stops answering its host until `power_cycle`."""
        with self._lock:
            self._chip.hang()

    def power_cycle(self) -> None:
        """The chip's reset pin: 115200 baud, field off, asleep."""
        with self._lock:
            self._chip.power_cycle()

    def change_speed(self, baud: int) -> None:
        """The chip listens at another line speed than its host believes."""
        with self._lock:
            self._chip.change_speed(baud)

    def send_noise(self, data: bytes) -> None:
        """Put bytes on the line towards the host, as a bad cable would."""
        self._write(data)

    def _emit(self, name: str, details: dict[str, Any]) -> None:
        if self.on_event is not None:
            self.on_event(name, self._clock(), details)

    def _serve(self) -> None:
        while not self._stopping:
            self._write(self._output())
            ready, _, _ = select.select([self._master, self._wake], [], [], self._wait_s())
            if self._master in ready:
                self._receive(self._read())

    def _wait_s(self) -> float | None:
        with self._lock:
            due_s = self._chip.next_due_s
        return None if due_s is None else max(0.0, due_s - self._clock())

    def _output(self) -> bytes:
        with self._lock:
            return self._chip.output(self._clock(), self._line_baud())

    def _receive(self, data: bytes) -> None:
        with self._lock:
            self._chip.receive(data, self._clock(), self._line_baud())

    def _read(self) -> bytes:
        try:
            return os.read(self._master, READ_BYTES)
        except BlockingIOError:  # the host flushed its output between select and read
            return b""

    def _write(self, data: bytes) -> None:
        if not data:
            return
        try:
            os.write(self._master, data)
        except BlockingIOError:
            # Nobody reads and the buffer is full. A UART without flow control loses bytes then.
            return

    def _line_baud(self) -> int | None:
        """The speed that the host has set; None for one that is not in termios' table."""
        return _SPEEDS.get(termios.tcgetattr(self._slave)[_OSPEED])
