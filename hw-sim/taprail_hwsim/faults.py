"""What goes wrong at a counter, under one vocabulary: what hands, cards, readers and wires do.

A fault is played on a `Scene` around one card. It answers for the trouble and for its end: when
`play` returns, all that was broken works again and the pad is empty. What is drawn comes from the
scene's own random numbers, so the same seed does the same again. What a terminal makes of it is the
matter of whoever judges.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from taprail_hwsim.cards import BankCard, Card, MisshapenCard, Ntag424, SlowCard
from taprail_hwsim.gateway_wire import GatewayWire
from taprail_hwsim.pads import KINDS, Pad, PcscPad, Pn532Pad

PATIENCE_S: Final = 2.5
"""Nobody holds a card longer before a terminal that says nothing."""

FORGOTTEN_S: Final = 0.4
"""How long a card stays behind after its answer."""

_BOUNCE_S: Final = (0.05, 0.3)
"""A hand that hesitates at the edge of the field. Who taps again on purpose takes longer."""

_OUTAGE_S: Final = (0.05, 0.6)
_MOST_APDUS: Final = 2
_FOREVER: Final = 1_000_000
_WAITS: Final = (3, 30, _FOREVER)
_OTHER_SPEEDS: Final = (115200, 230400, 460800)
_JUNK_BYTES: Final = 100
_MOST_LEFT_BYTES: Final = 3
_NXP: Final = 0x04  # ISO/IEC 7816-6 manufacturer code, the first byte of a 7-byte UID


@dataclass
class Scene:
    """A counter: the pad, what is behind the terminal, and how the customer knows that the terminal
    has answered (`answered` waits for it; a customer waits no longer than PATIENCE_S)."""

    pad: Pad
    rng: random.Random
    answered: Callable[[], Awaitable[object]]
    wire: GatewayWire | None = None
    cut_power: Callable[[], Awaitable[None]] | None = None
    """The terminal's: off without a word, and on again."""
    unanswered: int = 0
    """Customers who have lost patience."""

    async def wait_for_answer(self) -> None:
        """Until the terminal has answered, or the customer has lost patience."""
        try:
            await asyncio.wait_for(self.answered(), PATIENCE_S)
        except TimeoutError:
            self.unanswered += 1

    async def tap(self, card: Card) -> None:
        """A card comes, is answered and leaves."""
        self.pad.put(card)
        await self.wait_for_answer()
        self.pad.lift()

    def draw_s(self, span_s: tuple[float, float]) -> float:
        """A time out of a span."""
        return self.rng.uniform(*span_s)


@dataclass(frozen=True)
class Fault:
    """One word of the vocabulary. `readers` are the kinds that can meet it."""

    name: str
    about: str
    play: Callable[[Scene, Card], Awaitable[None]]
    readers: tuple[str, ...] = KINDS
    needs_wire: bool = False
    needs_power: bool = False

    def fits(self, scene: Scene) -> bool:
        """Whether it can be played there."""
        has_all = scene.wire is not None or not self.needs_wire
        has_all = has_all and (scene.cut_power is not None or not self.needs_power)
        return has_all and scene.pad.driver in self.readers


async def _torn(scene: Scene, card: Card) -> None:
    scene.pad.put(card, tear_after_apdus=scene.rng.randint(0, _MOST_APDUS))
    await scene.wait_for_answer()
    scene.pad.lift()


async def _left(scene: Scene, card: Card) -> None:
    scene.pad.put(card)
    await scene.wait_for_answer()
    await asyncio.sleep(FORGOTTEN_S)
    scene.pad.lift()


async def _double_tap(scene: Scene, card: Card) -> None:
    await scene.tap(card)
    await asyncio.sleep(scene.draw_s(_BOUNCE_S))
    scene.pad.put(card)
    await asyncio.sleep(FORGOTTEN_S)
    scene.pad.lift()


async def _two_cards(scene: Scene, card: Card) -> None:
    other = Ntag424(_stranger_uid(), secrets.token_bytes(16), secrets.token_bytes(16))
    first, second = scene.rng.sample((card, other), 2)
    scene.pad.put(first)
    scene.pad.put_beside(second)
    await scene.wait_for_answer()
    scene.pad.lift()


async def _wrong_kind(scene: Scene, _card: Card) -> None:
    await scene.tap(BankCard(_stranger_uid()))


async def _slow(scene: Scene, card: Card) -> None:
    await scene.tap(SlowCard(card, scene.rng.choice(_WAITS)))


async def _corrupt(scene: Scene, card: Card) -> None:
    scene.pad.disturb(scene.rng.choice((1, 4, _FOREVER)))
    try:
        await scene.tap(card)
    finally:
        scene.pad.disturb(0)


async def _short(scene: Scene, card: Card) -> None:
    left = scene.rng.randint(0, _MOST_LEFT_BYTES)
    await scene.tap(MisshapenCard(card, lambda frame: frame[:left], _draw_times(scene)))


async def _long(scene: Scene, card: Card) -> None:
    junk = scene.rng.randbytes(_JUNK_BYTES)
    await scene.tap(MisshapenCard(card, lambda frame: frame + junk, _draw_times(scene)))


async def _unplugged(scene: Scene, card: Card) -> None:
    scene.pad.put(card)
    await asyncio.sleep(scene.draw_s((0.0, 0.05)))
    await asyncio.to_thread(scene.pad.unplug)
    await asyncio.sleep(scene.draw_s(_OUTAGE_S))
    scene.pad.lift()
    await asyncio.to_thread(scene.pad.plug_in)


async def _hung(scene: Scene, card: Card) -> None:
    scene.pad.put(card)
    await asyncio.sleep(scene.draw_s((0.0, 0.05)))
    scene.pad.hang()
    await asyncio.sleep(scene.draw_s(_OUTAGE_S))
    scene.pad.lift()
    await asyncio.to_thread(scene.pad.power_cycle)


async def _wrong_baud(scene: Scene, card: Card) -> None:
    assert isinstance(scene.pad, Pn532Pad)  # noqa: S101 - `readers` says so
    scene.pad.change_speed(scene.rng.choice(_OTHER_SPEEDS))
    await scene.tap(card)


async def _pcscd_restarted(scene: Scene, card: Card) -> None:
    assert isinstance(scene.pad, PcscPad)  # noqa: S101 - `readers` says so
    scene.pad.put(card)
    await asyncio.sleep(scene.draw_s((0.0, 0.05)))
    await asyncio.to_thread(scene.pad.restart_daemon)
    scene.pad.lift()


async def _gateway_away(scene: Scene, card: Card) -> None:
    assert scene.wire is not None  # noqa: S101 - `needs_wire` says so
    scene.wire.fall_silent()
    try:
        await scene.tap(card)
    finally:
        scene.wire.mend()


async def _replies_lost(scene: Scene, card: Card) -> None:
    assert scene.wire is not None  # noqa: S101 - `needs_wire` says so
    scene.wire.lose_answers(scene.rng.randint(1, 2))
    try:
        await scene.tap(card)
    finally:
        scene.wire.mend()


async def _power_cut(scene: Scene, card: Card) -> None:
    assert scene.cut_power is not None  # noqa: S101 - `needs_power` says so
    scene.pad.put(card)
    await asyncio.sleep(scene.draw_s((0.0, 0.1)))
    await scene.cut_power()
    scene.pad.lift()


FAULTS: Final[dict[str, Fault]] = {
    fault.name: fault
    for fault in (
        Fault("torn", "The card leaves after 0 to 2 of its answers.", _torn),
        Fault("left", "The card stays on the pad after its answer.", _left),
        Fault(
            "double_tap", "The hand hesitates: the card leaves and is back at once.", _double_tap
        ),
        Fault("two_cards", "A second card lies in the same wallet.", _two_cards),
        Fault("wrong_kind", "A bank card is put on the pad.", _wrong_kind),
        Fault("slow_card", "The card asks for more time, a few times or without end.", _slow),
        Fault("corrupt", "The card's answers arrive damaged, some or all of them.", _corrupt),
        Fault("short_frame", "Answers of the card are cut after 0 to 3 bytes.", _short),
        Fault("long_frame", "Answers of the card are 100 bytes too long.", _long),
        Fault("unplugged", "The reader is pulled out under the card, and comes back.", _unplugged),
        Fault("hung", "The reader stops answering until its power is cycled.", _hung),
        Fault("wrong_baud", "The chip listens at another line speed.", _wrong_baud, ("pn532",)),
        Fault("pcscd_restarted", "pcscd is restarted under the card.", _pcscd_restarted, ("pcsc",)),
        Fault("gateway_away", "The gateway answers nothing.", _gateway_away, needs_wire=True),
        Fault(
            "replies_lost",
            "The gateway takes the request, and its answer is lost once or twice.",
            _replies_lost,
            needs_wire=True,
        ),
        Fault(
            "power_cut", "The terminal's power goes at some moment.", _power_cut, needs_power=True
        ),
    )
}
"""The whole vocabulary."""


def _draw_times(scene: Scene) -> int:
    return scene.rng.choice((1, 3, _FOREVER))


def _stranger_uid() -> bytes:
    return bytes([_NXP]) + secrets.token_bytes(6)
