"""Counters at which cards are tapped and things go wrong, with a real gateway behind them.

Each counter is a terminal in a process of its own, at a fixed price, before a simulated reader. The
judge shares nothing with it: what a customer was told is decoded from the panel's wires, and what
was charged is what the gateway's ledger says.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections import Counter as Tally
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import func, select

from taprail_common.signing import create_key_file, load_key_file, public_key_text
from taprail_gateway import registry
from taprail_gateway.ledger.schema import payments
from taprail_hwsim.cards import Ntag424
from taprail_hwsim.event_log import EventLog, TerminalSilentError, command
from taprail_hwsim.faults import FAULTS, Fault, Scene
from taprail_hwsim.gateway_wire import GatewayWire
from taprail_hwsim.pads import Pad
from taprail_hwsim.panel.lights import BUZZER, Edge
from taprail_hwsim.panel.remote import RemotePanel
from taprail_hwsim.process import Program
from taprail_hwsim.stack_files import PINS
from tests.support.gateway_fixtures import MERCHANT, TestGateway

CLEAN: Final = "clean"
IN_A_HUNDRED: Final = {
    CLEAN: 59,
    "torn": 5,
    "left": 3,
    "double_tap": 4,
    "two_cards": 3,
    "wrong_kind": 3,
    "slow_card": 3,
    "corrupt": 3,
    "short_frame": 3,
    "long_frame": 3,
    "replies_lost": 4,
    "gateway_away": 2,
    "unplugged": 1,
    "hung": 1,
    "wrong_baud": 1,
    "pcscd_restarted": 1,
    "power_cut": 1,
}
"""How often each is dealt; what a reader cannot meet is tapped cleanly there."""

NOBODY_CHOSE: Final = {"two_cards", "wrong_kind"}
CARDS: Final = 12
REST_LIMIT_S: Final = 30.0
"""A terminal that is not ready for the next card by then is wedged."""
TONE_LIMIT_S: Final = 2.0
_HIGH_HZ, _HIGHEST_HZ = 1500, 2000
_MOVES: Final = ("view", "verdict", "resolved", "reader", "card_removed", "card_lies", "shown")

_CONFIG: Final = """\
[terminal]
id = "{id}"
merchant_id = "{merchant}"
currency = "TUSD"
decimals = 6
state_dir = "state"
gateway_url = "{url}"
gateway_public_key = "{key}"
verdict_timeout_ms = 1000
mode = "fixed"
fixed_amount = "0.01"

[reader]
driver = "{driver}"
port = "{port}"

[lights]
pins = [{pins}]
buzzer_pin = {buzzer}

[log]
level = "error"
"""


class Onlooker:
    """What a customer sees and hears: a tone that rises is a yes (EMV's success tone, prolonged
    upwards); red, amber and quick ticks are all something else."""

    def __init__(self) -> None:
        self.greens = 0
        self.spoken = asyncio.Event()
        self._green = asyncio.Event()
        self._tone_hz: float | None = None
        self._ticks = 0

    def notice(self, name: str, edge: Edge) -> None:
        """One change on the panel's wires."""
        if name == BUZZER:
            self._hear(edge.frequency_hz if edge.duty > 0 else None)
        elif name in {"red", "amber"} and edge.duty > 0:
            self.spoken.set()

    def begin(self) -> None:
        """From here on it is about another card."""
        self._ticks = 0
        self.spoken.clear()

    async def hears(self, greens: int) -> None:
        """Until so many were heard; a tone that something else has cut short is not waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TONE_LIMIT_S):
                while self.greens < greens:
                    self._green.clear()
                    await self._green.wait()

    def _hear(self, tone_hz: float | None) -> None:
        before, self._tone_hz = self._tone_hz, tone_hz
        if before == _HIGH_HZ and tone_hz == _HIGHEST_HZ:
            self.greens += 1
            self._green.set()
            self.spoken.set()
        if before is None and tone_hz == _HIGH_HZ:
            self._ticks += 1
            if self._ticks > 2:  # one is "lift your card", two are that and a yes
                self.spoken.set()


@dataclass
class Book:
    """What was tapped, and what is wrong with it."""

    taps: Tally[str] = field(default_factory=Tally)
    charges: int = 0
    turned_away: int = 0
    """Clean taps that were neither charged nor green: a reader that a fault has left in disorder,
    and that has not noticed it yet, needs a moment."""
    greens: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.taps.total()


class TapCounter:
    """One terminal, its hand and its judge."""

    def __init__(self, folder: Path, name: str, pad: Pad, gateway: TestGateway, book: Book) -> None:
        self.name, self._folder, self._pad, self._gateway = name, folder, pad, gateway
        self._book = book
        self._life = AsyncExitStack()
        self._log: EventLog
        self._onlooker = Onlooker()
        self._cards: deque[Ntag424] = deque()
        self._program = Program(
            name,
            [
                *(sys.executable, "-m", "taprail_hwsim.terminal_process"),
                *("--config", str(folder / "terminal.toml")),
                *("--panel", str(folder / "panel.sock")),
            ],
            folder / "terminal.log",
            pad.environment,
        )

    @property
    def _socket(self) -> Path:
        return self._folder / "state" / "control.sock"

    async def open(self, seed: int, number: int) -> None:
        """Register the terminal, give its customers cards, and start it."""
        key_file = self._folder / "state" / "device.key"
        create_key_file(key_file)
        public_key = public_key_text(load_key_file(key_file, "device key").verify_key)
        now_ms = self._gateway.now_ms()
        self._gateway.ledger.write_now(
            lambda db: registry.add_terminal(db, self.name, MERCHANT, public_key, now_ms)
        )
        for each in range(CARDS):
            self._cards.append(self._gateway.card(f"04{number:04X}{each:08X}").chip)
        enter = self._life.enter_async_context
        self._wire = await enter(GatewayWire(self._gateway.url))
        panel = RemotePanel(self._folder / "panel.sock", PINS)
        panel.on_edge = self._onlooker.notice
        await panel.start()
        self._life.push_async_callback(panel.close)
        self._write_config(self._wire.url)
        self._scene = Scene(
            self._pad,
            random.Random(f"{seed}/{number}"),
            self._onlooker.spoken.wait,
            self._wire,
            self._cut_power,
        )
        await self._start()
        if not await self._comes_to_rest():
            self._accuse("never ready")

    async def close(self) -> None:
        """End the terminal and what is around it."""
        await self._log.close()
        if self._program.is_running:
            await self._program.stop()
        await self._life.aclose()

    def _write_config(self, url: str) -> None:
        pins = ", ".join(str(pin) for name, pin in PINS.items() if name != BUZZER)
        (self._folder / "terminal.toml").write_text(
            _CONFIG.format(
                id=self.name,
                merchant=MERCHANT,
                url=url,
                key=public_key_text(self._gateway.public_key),
                driver=self._pad.driver,
                port=self._pad.port,
                pins=pins,
                buzzer=PINS[BUZZER],
            )
        )

    async def _start(self) -> None:
        await self._program.start()
        self._log = EventLog(self._socket)
        await self._log.follow()

    async def _cut_power(self) -> None:
        await self._program.kill()
        await self._log.close()
        await self._start()

    # --- taps ---------------------------------------------------------------------------------

    def can_meet(self, name: str) -> bool:
        """Whether this can be played before this counter's reader."""
        return name == CLEAN or FAULTS[name].fits(self._scene)

    async def tap(self, name: str) -> None:
        """One tap, clean or with a fault, judged when the terminal is at rest again."""
        if not self.can_meet(name):
            name = CLEAN
        fault = FAULTS.get(name)
        before, greens = self._charges(), self._onlooker.greens
        card = self._cards[0]
        self._cards.rotate(-1)
        self._onlooker.begin()
        await self._play(fault, card)
        if not await self._comes_to_rest():
            self._accuse(f"wedged after {name}")
        charges = self._charges() - before
        await self._onlooker.hears(greens + charges)
        self._judge(name, charges, self._onlooker.greens - greens)

    async def _play(self, fault: Fault | None, card: Ntag424) -> None:
        if fault is None:
            await self._scene.tap(card)
        else:
            await fault.play(self._scene, card)

    def _judge(self, name: str, charges: int, greens: int) -> None:
        book = self._book
        book.taps[name] += 1
        book.charges += charges
        book.greens += greens
        chosen = name not in NOBODY_CHOSE or (
            name == "two_cards" and self._pad.driver == "pcsc"  # that reader sees one card only
        )
        if charges > int(chosen):
            self._accuse(f"{charges} charges for {name}")
        if name == CLEAN and not charges:
            self._book.turned_away += 1
        # What was shown in the instant before a power cut is shown once more after it.
        if greens > charges + int(name == "power_cut"):
            self._accuse(f"{greens} times green for {charges} charges after {name}")
        if name == CLEAN and charges and not greens:
            self._accuse("a clean tap was charged, and no green was seen")

    def _accuse(self, problem: str) -> None:
        self._book.problems.append(f"{self.name}: {problem}")

    async def _comes_to_rest(self) -> bool:
        """Whether it waits for the next card by itself, with nothing unresolved."""
        try:
            async with asyncio.timeout(REST_LIMIT_S):
                while True:
                    mark = self._log.position
                    now = await command(self._socket, command="status")
                    resting = now["armed"] and not now["cardPresent"]
                    if resting and now["outbox"]["unresolved"] == 0:
                        return True
                    await self._log.wait_for(*_MOVES, since=mark, timeout_s=REST_LIMIT_S)
        except (TimeoutError, TerminalSilentError):
            return False

    def _charges(self) -> int:
        mine = select(func.count()).select_from(payments).where(payments.c.terminal_id == self.name)
        return int(self._gateway.ledger.read_now(lambda db: db.scalar(mine)) or 0)


@asynccontextmanager
async def counters(
    folder: Path, gateway: TestGateway, pads: list[Pad], seed: int, book: Book
) -> AsyncIterator[list[TapCounter]]:
    """A counter for each pad, all open."""
    made: list[TapCounter] = []
    try:
        for number, pad in enumerate(pads):
            own = folder / f"t{number}"
            (own / "state").mkdir(parents=True)
            made.append(TapCounter(own, f"tap-{number}", pad, gateway, book))
        await asyncio.gather(*(it.open(seed, number) for number, it in enumerate(made)))
        yield made
    finally:
        await asyncio.gather(*(it.close() for it in made), return_exceptions=True)


async def tap_all(
    made: list[TapCounter], seed: int, taps: int, goes_on: Callable[[], bool] = lambda: True
) -> None:
    """Deal so many taps to the counters, each of which takes the next when it is done."""
    rng, deck = random.Random(seed), [name for name, n in IN_A_HUNDRED.items() for _ in range(n)]
    dealt: list[str] = []
    while len(dealt) < taps:
        dealt += rng.sample(deck, len(deck))
    left = dealt[:taps]

    async def work(counter: TapCounter) -> None:
        while left and goes_on():
            # The first that this counter can meet; what nobody can is tapped cleanly in the end.
            fitting = (at for at, name in enumerate(left) if counter.can_meet(name))
            await counter.tap(left.pop(next(fitting, 0)))

    async with asyncio.TaskGroup() as group:
        for counter in made:
            group.create_task(work(counter))
