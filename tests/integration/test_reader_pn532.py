"""The PN532 driver, with nfcpy's own code below it, against the chip on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from taprail_common.errors import OperatorError
from taprail_common.wire import SunProof, UidProof
from taprail_hwsim.cards import Card, Ntag21x, Ntag424
from taprail_hwsim.pn532 import Pn532Simulator
from taprail_terminal.outcome import CardProof
from taprail_terminal.readers import make_driver
from taprail_terminal.readers.polling import (
    Finished,
    Gone,
    Lost,
    Opened,
    Report,
    Sensed,
    Torn,
    Unreadable,
)
from taprail_terminal.readers.supervisor import Reader

META_KEY, FILE_KEY = bytes(range(16)), bytes(range(16, 32))
REPORT_LIMIT_S = 10.0


def sun_card(last: int = 1, *, wtx_per_apdu: int = 0) -> Ntag424:
    uid = bytes([4, 2, 3, 4, 5, 6, last])
    return Ntag424(uid, META_KEY, FILE_KEY, wtx_per_apdu=wtx_per_apdu)


class Bench:
    """A reader under test, and what it has reported."""

    def __init__(self, path: str) -> None:
        self.reports: asyncio.Queue[Report] = asyncio.Queue()
        self.reader = Reader(
            lambda: make_driver("pn532", path),
            lambda report, _at_s: self.reports.put_nowait(report),
        )

    async def next(self) -> Report:
        return await asyncio.wait_for(self.reports.get(), REPORT_LIMIT_S)

    async def expect(self, *kinds: type[Report]) -> list[Report]:
        got = [await self.next() for _ in kinds]
        assert [type(report) for report in got] == list(kinds)
        return got

    async def tap(self, simulator: Pn532Simulator, card: Card) -> Report:
        self.reader.arm()
        simulator.put(card)
        _, report = await self.expect(Sensed, Finished)
        simulator.lift()
        await self.expect(Gone)
        return report


@pytest.fixture
def simulator() -> Iterator[Pn532Simulator]:
    with Pn532Simulator() as simulator:
        yield simulator


@pytest.fixture
async def bench(simulator: Pn532Simulator) -> AsyncIterator[Bench]:
    bench = Bench(simulator.path)
    bench.reader.start()
    await bench.expect(Opened)
    yield bench
    await bench.reader.stop()


async def test_a_tap_gives_the_cards_proof(bench: Bench, simulator: Pn532Simulator) -> None:
    card = sun_card()
    report = await bench.tap(simulator, card)
    picc, mac = card.sun_proof(card.counter)
    assert report == Finished(CardProof(SunProof(picc_data=picc, mac=mac)))


async def test_a_sun_card_is_read_in_three_exchanges() -> None:
    names: list[str] = []

    def hear(name: str, _at_s: float, details: dict[str, object]) -> None:
        if name == "apdu":
            names.append(str(details["name"]))

    with Pn532Simulator(on_event=hear) as simulator:
        bench = Bench(simulator.path)
        bench.reader.start()
        await bench.expect(Opened)
        await bench.tap(simulator, sun_card())
        await bench.reader.stop()
    assert names == ["SELECT", "SELECT", "READ BINARY"]


async def test_a_plain_tag_gives_its_serial_number(bench: Bench, simulator: Pn532Simulator) -> None:
    uid = bytes.fromhex("04A1B2C3D4E5F6")
    report = await bench.tap(simulator, Ntag21x(uid))
    assert report == Finished(CardProof(UidProof(uid=uid.hex().upper())))
    assert uid.hex().upper() not in repr(report)


async def test_a_card_left_on_the_pad_is_one_tap(bench: Bench, simulator: Pn532Simulator) -> None:
    card = sun_card()
    bench.reader.arm()
    simulator.put(card)
    await bench.expect(Sensed, Finished)
    counter = card.counter
    bench.reader.arm()  # the next sale is ready, and the card still lies there
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.reports.get(), 0.5)
    assert card.counter == counter  # signs of life are no reads
    simulator.lift()
    await bench.expect(Gone)


async def test_damaged_answers_are_no_removal(bench: Bench, simulator: Pn532Simulator) -> None:
    bench.reader.arm()
    simulator.put(sun_card())
    await bench.expect(Sensed, Finished)
    bench.reader.arm()
    simulator.disturb(6)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.reports.get(), 0.6)
    simulator.lift()
    await bench.expect(Gone)


@pytest.mark.parametrize("apdus", [0, 1, 2])
async def test_a_card_torn_away_early_can_be_tapped_again_at_once(
    bench: Bench, simulator: Pn532Simulator, apdus: int
) -> None:
    card = sun_card()
    bench.reader.arm()
    simulator.put(card, tear_after_apdus=apdus)
    await bench.expect(Sensed, Torn)
    assert isinstance(await bench.tap(simulator, card), Finished)


async def test_a_disturbed_read_is_tried_again_in_the_same_presence(
    bench: Bench, simulator: Pn532Simulator
) -> None:
    simulator.disturb(1)
    assert isinstance(await bench.tap(simulator, sun_card()), Finished)


async def test_a_card_that_stays_disturbed_is_unreadable_not_gone(
    bench: Bench, simulator: Pn532Simulator
) -> None:
    bench.reader.arm()
    simulator.disturb(10_000)
    simulator.put(sun_card())
    await bench.expect(Sensed, Unreadable)
    simulator.lift()
    await bench.expect(Gone)


async def test_a_slow_card_is_waited_for(bench: Bench, simulator: Pn532Simulator) -> None:
    assert isinstance(await bench.tap(simulator, sun_card(wtx_per_apdu=2)), Finished)


async def test_a_card_that_asks_for_time_without_end_is_given_up(
    bench: Bench, simulator: Pn532Simulator
) -> None:
    bench.reader.arm()
    simulator.put(sun_card(wtx_per_apdu=1_000_000))
    await bench.expect(Sensed, Unreadable)
    assert bench.reader.trouble is None


async def test_a_hesitating_hand_is_one_tap(bench: Bench, simulator: Pn532Simulator) -> None:
    card = sun_card()
    await bench.tap(simulator, card)
    bench.reader.arm()
    simulator.put(card)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.reports.get(), 0.4)


async def test_another_card_may_follow_at_once(bench: Bench, simulator: Pn532Simulator) -> None:
    for number in range(5):
        assert isinstance(await bench.tap(simulator, sun_card(number)), Finished)


async def test_nothing_is_read_while_disarmed(bench: Bench, simulator: Pn532Simulator) -> None:
    bench.reader.arm()
    bench.reader.disarm()
    card = sun_card()
    simulator.put(card)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.reports.get(), 0.6)
    assert card.counter == 0
    bench.reader.arm()
    await bench.expect(Sensed, Finished)


async def test_noise_on_the_line_does_not_lose_the_reader(
    bench: Bench, simulator: Pn532Simulator
) -> None:
    bench.reader.arm()
    for noise in (b"\x00", b"\xff\x00\xff", b"\x00\x00\xff\x01"):
        simulator.send_noise(noise)
        await asyncio.sleep(0.05)
    assert isinstance(await bench.tap(simulator, sun_card()), Finished)


async def test_a_reader_that_hangs_is_lost_and_comes_back(
    bench: Bench, simulator: Pn532Simulator
) -> None:
    bench.reader.arm()
    simulator.hang()
    async with asyncio.timeout(3.0):
        await bench.expect(Lost)
    assert bench.reader.trouble is not None
    simulator.power_cycle()
    while not isinstance(await bench.next(), Opened):
        pass
    assert isinstance(await bench.tap(simulator, sun_card()), Finished)


async def test_a_reader_that_is_unplugged_while_idle_is_noticed_and_found_again(
    tmp_path: Path,
) -> None:
    port = tmp_path / "reader"  # as udev names a reader, wherever the kernel puts it
    with Pn532Simulator() as simulator:
        port.symlink_to(simulator.path)
        bench = Bench(str(port))
        bench.reader.start()
        await bench.expect(Opened)
        port.unlink()
    async with asyncio.timeout(3.0):
        await bench.expect(Lost)
    with Pn532Simulator() as simulator:
        port.symlink_to(simulator.path)
        while not isinstance(await bench.next(), Opened):
            pass
        assert isinstance(await bench.tap(simulator, sun_card()), Finished)
        await bench.reader.stop()


async def test_a_chip_left_at_high_speed_by_a_killed_process_is_recovered(
    simulator: Pn532Simulator,
) -> None:
    code = (
        "import sys, time; from taprail_terminal.readers import make_driver; "
        "make_driver('pn532', sys.argv[1]).open(); print('open', flush=True); time.sleep(60)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, simulator.path, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"open\n"
    process.kill()
    await process.wait()
    assert simulator.baud == 921600
    bench = Bench(simulator.path)
    bench.reader.start()
    await bench.expect(Opened)
    await bench.reader.stop()
    assert simulator.baud == 115200


@pytest.mark.parametrize("path", ["/dev/no-such-reader", "/dev/x; true", "COM1"])
def test_a_port_that_cannot_be_is_refused_at_start(path: str) -> None:
    with pytest.raises(OperatorError, match="reader"):
        make_driver("pn532", path).check()


def test_a_driver_that_nobody_knows_is_refused() -> None:
    with pytest.raises(OperatorError, match="pn532"):
        make_driver("pn999", "/dev/null")


async def test_a_stopped_reader_leaves_no_thread(bench: Bench) -> None:
    await bench.reader.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "reader"]
