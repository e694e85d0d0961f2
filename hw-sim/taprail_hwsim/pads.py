"""Readers of either kind as a person knows them: a pad for cards, a plug, a power switch.

Answers for one form over both simulators, so that a scene can be played on each. The terminal is
told `driver` and `port`, which stay when the reader is taken away and brought back.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from taprail_hwsim.cards.base import Card
from taprail_hwsim.pcsc import READER_NAME, Pcscd, PcscSimulator
from taprail_hwsim.pn532 import Pn532Simulator

KINDS = ("pn532", "pcsc")


class Pad(ABC):
    """A reader before which one can do things."""

    driver: str
    port: str

    @property
    @abstractmethod
    def simulator(self) -> Pn532Simulator | PcscSimulator:
        """What is behind it now."""

    @property
    def environment(self) -> dict[str, str]:
        """What a terminal's process has to find in its environment."""
        return {}

    def put(self, card: Card, tear_after_apdus: int | None = None) -> None:
        """A card comes; it is torn away after that many answered APDUs."""
        self.simulator.put(card, tear_after_apdus)

    def put_beside(self, card: Card) -> None:
        """One more card comes, as in a wallet."""
        self.simulator.put_beside(card)

    def lift(self) -> None:
        """What lies there is taken away; nothing happens when there is nothing."""
        self.simulator.lift()

    @property
    def card(self) -> Card | None:
        """What lies there."""
        return self.simulator.card

    def disturb(self, exchanges: int = 1) -> None:
        """The card's next answers arrive damaged."""
        self.simulator.disturb(exchanges)

    def hang(self) -> None:
        """The reader answers nothing any more, until its power is cycled."""
        self.simulator.hang()

    def power_cycle(self) -> None:
        """Its power goes and comes."""
        self.simulator.power_cycle()

    @abstractmethod
    def unplug(self) -> None:
        """Take the reader away."""

    @abstractmethod
    def plug_in(self) -> None:
        """Bring it back, as it is after power-on."""


class Pn532Pad(Pad):
    """A PN532 at a name that stays, as udev gives it, wherever the kernel puts the port."""

    driver = "pn532"

    def __init__(self, folder: Path, make: Callable[[], Pn532Simulator] = Pn532Simulator) -> None:
        self._link = folder / "pn532"
        self.port = str(self._link)
        self._make = make
        self._simulator = make()

    @property
    def simulator(self) -> Pn532Simulator:
        return self._simulator

    def change_speed(self, baud: int) -> None:
        """The chip listens at another line speed than its host believes."""
        self._simulator.change_speed(baud)

    def unplug(self) -> None:
        self._link.unlink(missing_ok=True)
        self._simulator.stop()

    def plug_in(self) -> None:
        hears, self._simulator = self._simulator.on_event, self._make()
        self._simulator.on_event = hears
        self._simulator.start()
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(self._simulator.path)


class PcscPad(Pad):
    """A PC/SC reader of a pcscd that runs already."""

    driver = "pcsc"
    port = READER_NAME

    def __init__(self, daemon: Pcscd, rf_delay_ms: float = 0.0) -> None:
        self._daemon = daemon
        self._simulator = PcscSimulator(daemon, rf_delay_ms=rf_delay_ms)

    @property
    def simulator(self) -> PcscSimulator:
        return self._simulator

    @property
    def environment(self) -> dict[str, str]:
        return self._daemon.environment

    def unplug(self) -> None:
        self._simulator.unplug()

    def plug_in(self) -> None:
        self._simulator.plug_in()

    def restart_daemon(self) -> None:
        """pcscd ends and comes back; the card stays where it is."""
        self._simulator.restart_daemon()


@contextlib.contextmanager
def pn532_pad(folder: Path) -> Iterator[Pn532Pad]:
    """A PN532, plugged in."""
    pad = Pn532Pad(folder)
    pad.plug_in()
    try:
        yield pad
    finally:
        pad.unplug()


@contextlib.contextmanager
def pcsc_pad(daemon: Pcscd, rf_delay_ms: float = 0.0) -> Iterator[PcscPad]:
    """A PC/SC reader, plugged in."""
    pad = PcscPad(daemon, rf_delay_ms)
    pad.simulator.start()
    try:
        yield pad
    finally:
        pad.simulator.stop()
        daemon.start()
