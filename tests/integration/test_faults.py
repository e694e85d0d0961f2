"""Every fault of the vocabulary: it bites a terminal that is written naively, and ours survives it.

Survives: at most one charge for what a hand did once, none where nobody has chosen a card; the
terminal comes to rest by itself with nothing unresolved, and takes the next card.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from taprail_hwsim.cards import Ntag424
from taprail_hwsim.event_log import Event, EventLog, TerminalSilentError
from taprail_hwsim.faults import FAULTS, Fault, Scene
from taprail_hwsim.gateway_wire import GatewayWire
from taprail_hwsim.pads import Pad, pcsc_pad, pn532_pad
from tests.support.naive_terminal import NaiveTerminal
from tests.support.played_gateway import PlayedGateway
from tests.support.terminal_fixtures import AgentProcess, agent, make_key, write_config

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODY_CHOSE = {"two_cards", "wrong_kind"}
ALWAYS_ANSWERED = {"torn", "left", "two_cards", "wrong_kind", "gateway_away", "replies_lost"}
SAID = {"approved", "declined", "unknown", "try_again", "card_refused"}
PCSC_HAS_ITS_OWN_WAY = ("torn", "slow_card", "unplugged", "hung", "pcscd_restarted")
"""The others were the same bytes over another cable; the readers' contract has them too."""
SEEDS = 12
OPENS_S = 5.0
A_MOMENT_S = 0.2
READ_BYTES = 0x80 + 2
"""What a whole answer to READ BINARY has."""

PLAYED = [("pn532", fault) for fault in FAULTS.values() if "pn532" in fault.readers]
PLAYED += [("pcsc", FAULTS[name]) for name in PCSC_HAS_ITS_OWN_WAY]

_uids = itertools.count(1)


def new_card() -> Ntag424:
    return Ntag424(bytes([4]) + next(_uids).to_bytes(6, "big"), bytes(16), bytes(16))


@pytest.fixture(scope="module")
def pads(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pads:
    return Pads(request, tmp_path_factory)


class Pads:
    """A pad of the kind that is asked for."""

    def __init__(self, request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> None:
        self._request, self._folders = request, folders

    @asynccontextmanager
    async def pad(self, kind: str) -> AsyncIterator[Pad]:
        if kind == "pcsc":
            with pcsc_pad(self._request.getfixturevalue("pcscd")) as pad:
                yield pad
        else:
            with pn532_pad(self._folders.mktemp("pad")) as pad:
                yield pad


# --- a naive terminal ---------------------------------------------------------------------------


class Naive:
    """A counter with a naive terminal."""

    def __init__(self, pad: Pad, gateway: PlayedGateway, wire: GatewayWire, seed: int) -> None:
        self.gateway, self._pad, self._wire = gateway, pad, wire
        self._answers: asyncio.Queue[None] = asyncio.Queue()
        self.terminal: NaiveTerminal
        self.scene = Scene(
            pad, random.Random(seed), self._answered, wire=wire, cut_power=self._cut_power
        )

    async def start(self) -> None:
        loop = asyncio.get_running_loop()

        def said() -> None:
            loop.call_soon_threadsafe(self._answers.put_nowait, None)

        self.terminal = NaiveTerminal(self._pad, self._wire.url, said)
        await asyncio.to_thread(self.terminal.opened.wait, OPENS_S)

    async def _answered(self) -> None:
        await self._answers.get()

    async def _cut_power(self) -> None:
        await asyncio.to_thread(self.terminal.stop)
        await self.start()
        await asyncio.sleep(A_MOMENT_S)

    def is_hurt(self, fault: Fault) -> bool:
        proofs = [json.loads(body)["proof"] for body in self.gateway.bodies]
        overcharged = len(proofs) > (0 if fault.name in NOBODY_CHOSE else 1)
        believed = any(len(proof) != 2 * READ_BYTES for proof in proofs)
        return (
            overcharged or believed or self.terminal.died is not None or bool(self.scene.unanswered)
        )


@asynccontextmanager
async def naive(pads: Pads, kind: str, seed: int) -> AsyncIterator[Naive]:
    async with (
        PlayedGateway().serving() as gateway,
        GatewayWire(gateway.url) as wire,
        pads.pad(kind) as pad,
    ):
        counter = Naive(pad, gateway, wire, seed)
        await counter.start()
        try:
            yield counter
        finally:
            pad.lift()
            wire.mend()
            await asyncio.to_thread(counter.terminal.stop)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_it_bites(pads: Pads, fault: Fault) -> None:
    for seed in range(SEEDS):
        async with naive(pads, fault.readers[0], seed) as counter:
            await fault.play(counter.scene, new_card())
            if not counter.is_hurt(fault):
                await asyncio.sleep(A_MOMENT_S)  # dying of a reader takes one
            if counter.is_hurt(fault):
                return
    pytest.fail(f"{fault.name} has hurt nobody in {SEEDS} seeds")


# --- our terminal -------------------------------------------------------------------------------


class Counter:
    """A counter with our terminal, at a fixed price: it arms itself, which is the harder case."""

    def __init__(self, pad: Pad, gateway: PlayedGateway, wire: GatewayWire, config: Path) -> None:
        self.pad, self.gateway, self._config = pad, gateway, config
        self._life = AsyncExitStack()
        self._agent: AgentProcess
        self._log: EventLog
        self.scene = Scene(
            pad, random.Random(0), self._answered, wire=wire, cut_power=self._cut_power
        )

    async def start(self) -> None:
        self._agent = await self._life.enter_async_context(agent(self._config))
        self._log = EventLog(self._agent.config.control_socket)
        await self._log.follow()
        self._life.push_async_callback(self._log.close)

    async def stop(self) -> None:
        await self._life.aclose()

    async def at_rest(self) -> None:
        """Ready for the next card by itself, with nothing unresolved."""
        await self._agent.until_status(
            lambda now: now["armed"] and not now["cardPresent"] and now["outbox"]["unresolved"] == 0
        )

    async def approved(self) -> None:
        """A sale that is not known yet; an older one may be drawn again meanwhile."""
        known = self.charges()

        def is_new(view: Event) -> bool:
            return view.get("phase") == "approved" and view.get("request") not in known

        await self._log.wait_for("view", since=self._log.position, where=is_new)

    def charges(self) -> set[str]:
        """What a gateway would have charged: each request once, however often it was posted."""
        return {json.loads(body)["requestId"] for body in self.gateway.bodies}

    async def _answered(self) -> None:
        await self._log.wait_for("view", since=self._log.position, where=_says_something)

    async def _cut_power(self) -> None:
        self._agent.process.kill()
        await self._agent.process.wait()
        await self.start()


def _says_something(view: Event) -> bool:
    return view.get("phase") in SAID


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def counters(pads: Pads, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Counters]:
    """One of each kind, made when it is first asked for."""
    async with AsyncExitStack() as exits:
        made = Counters(pads, tmp_path_factory, exits)
        yield made


class Counters(dict[str, Counter]):
    """Makes what is missing."""

    def __init__(self, pads: Pads, folders: pytest.TempPathFactory, exits: AsyncExitStack) -> None:
        self._pads, self._folders, self._exits = pads, folders, exits

    async def of(self, kind: str) -> Counter:
        if kind not in self:
            enter = self._exits.enter_async_context
            gateway = await enter(PlayedGateway().serving())
            wire = await enter(GatewayWire(gateway.url))
            pad = await enter(self._pads.pad(kind))
            config = write_config(self._folders.mktemp("t"), gateway, pad.port, timeout_ms=1000)
            config.write_text(
                config.read_text()
                .replace(gateway.url, wire.url)
                .replace("[reader]", f'[reader]\ndriver = "{kind}"')
            )
            make_key(config)
            counter = Counter(pad, gateway, wire, config)
            self._exits.push_async_callback(counter.stop)
            await counter.start()
            self[kind] = counter
        return self[kind]


async def _pay(counter: Counter) -> None:
    approved = asyncio.create_task(counter.approved())
    await asyncio.sleep(0)  # it looks first
    counter.pad.put(new_card())
    try:
        await approved
    finally:
        counter.pad.lift()


@pytest.mark.parametrize(
    ("kind", "fault"), PLAYED, ids=[f"{kind}-{fault.name}" for kind, fault in PLAYED]
)
async def test_we_survive_it(counters: Counters, kind: str, fault: Fault) -> None:
    counter = await counters.of(kind)
    await counter.at_rest()
    before, impatient = counter.charges(), counter.scene.unanswered
    await fault.play(counter.scene, new_card())
    await counter.at_rest()
    charged = counter.charges() - before
    assert len(charged) <= (0 if fault.name in NOBODY_CHOSE and kind == "pn532" else 1)
    if fault.name in ALWAYS_ANSWERED:
        assert counter.scene.unanswered == impatient
    if fault.name in {"left", "double_tap", "replies_lost"}:
        assert len(charged) == 1
    try:
        await _pay(counter)
    except TerminalSilentError:  # the reader was just coming back: told to lift, one taps again
        await counter.at_rest()
        await _pay(counter)
    assert len(counter.charges() - before - charged) == 1
