"""What every reader's driver has to do, shown on each: nfcpy before the simulated chip, and pyscard
with the real pcscd before a virtual card."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from taprail_common.wire import SunProof, UidProof
from taprail_hwsim.cards import Ntag21x
from taprail_hwsim.pads import Pad, PcscPad, Pn532Pad
from taprail_terminal.outcome import CardProof
from taprail_terminal.readers import make_driver
from taprail_terminal.readers.polling import (
    BOUNCE_S,
    Finished,
    Gone,
    Lies,
    Lost,
    Opened,
    Sensed,
    Torn,
    Unreadable,
)
from tests.support.reader_fixtures import Bench, opened, sun_card

NOTICED_S = 3.0
HEALED_S = 15.0
"""What a merchant may expect: a loss is seen within the first, and mended within the second."""


@pytest.fixture
async def bench(pad: Pad) -> AsyncIterator[Bench]:
    async with opened(pad) as bench:
        yield bench


async def test_a_tap_gives_the_cards_proof(bench: Bench) -> None:
    card = sun_card()
    report = await bench.tap(card)
    picc, mac = card.sun_proof(card.counter)
    assert report == Finished(CardProof(SunProof(picc_data=picc, mac=mac)))


async def test_a_sun_card_is_read_in_three_exchanges(bench: Bench) -> None:
    names: list[str] = []

    def hear(name: str, _at_s: float, details: dict[str, object]) -> None:
        if name == "apdu":
            names.append(str(details["name"]))

    bench.pad.simulator.on_event = hear
    await bench.tap(sun_card())
    assert names == ["SELECT", "SELECT", "READ BINARY"]


async def test_a_plain_tag_gives_its_serial_number(bench: Bench) -> None:
    uid = bytes.fromhex("04A1B2C3D4E5F6")
    report = await bench.tap(Ntag21x(uid))
    assert report == Finished(CardProof(UidProof(uid=uid.hex().upper())))
    assert uid.hex().upper() not in repr(report)


async def test_a_card_left_on_the_pad_is_one_tap(bench: Bench) -> None:
    card = sun_card()
    bench.reader.arm()
    bench.pad.put(card)
    await bench.expect(Sensed, Finished)
    counter = card.counter
    bench.reader.arm()  # the next sale is ready, and the card still lies there
    await bench.stays_quiet(0.5)
    assert card.counter == counter  # signs of life are no reads
    bench.pad.lift()
    await bench.expect(Gone)


async def test_damaged_answers_are_no_removal(bench: Bench) -> None:
    bench.reader.arm()
    bench.pad.put(sun_card())
    await bench.expect(Sensed, Finished)
    bench.reader.arm()
    bench.pad.disturb(6)
    await bench.stays_quiet(0.6)
    bench.pad.lift()
    await bench.expect(Gone)


@pytest.mark.parametrize("apdus", [0, 1, 2])
async def test_a_card_torn_away_early_can_be_tapped_again_at_once(bench: Bench, apdus: int) -> None:
    card = sun_card()
    bench.reader.arm()
    bench.pad.put(card, tear_after_apdus=apdus)
    await bench.expect(Sensed, Torn)
    assert isinstance(await bench.tap(card), Finished)


async def test_a_disturbed_read_is_tried_again_in_the_same_presence(bench: Bench) -> None:
    bench.pad.disturb(1)
    assert isinstance(await bench.tap(sun_card()), Finished)


async def test_a_card_that_stays_disturbed_is_unreadable_not_gone(bench: Bench) -> None:
    bench.reader.arm()
    bench.pad.disturb(10_000)
    bench.pad.put(sun_card())
    await bench.expect(Sensed, Unreadable)
    bench.pad.lift()
    await bench.expect(Gone)


async def test_a_slow_card_is_waited_for(bench: Bench) -> None:
    assert isinstance(await bench.tap(sun_card(wtx_per_apdu=2)), Finished)


async def test_a_card_that_asks_for_time_without_end_is_given_up(bench: Bench) -> None:
    bench.reader.arm()
    bench.pad.put(sun_card(wtx_per_apdu=1_000_000))
    await bench.expect(Sensed, Unreadable)
    assert bench.reader.trouble is None


async def test_a_hesitating_hand_is_one_tap(bench: Bench) -> None:
    card = sun_card()
    await bench.tap(card)
    bench.reader.arm()
    bench.pad.put(card)
    await bench.stays_quiet(0.4)


async def test_a_card_that_is_put_back_is_not_read_for_a_sale_that_nobody_asked_for(
    bench: Bench,
) -> None:
    card = sun_card()
    await bench.tap(card)
    bench.pad.put(card)
    await bench.stays_quiet(BOUNCE_S + 0.1)
    counter = card.counter
    bench.reader.arm(by_itself=True)
    await bench.expect(Lies)
    await bench.stays_quiet(0.3)
    assert card.counter == counter
    bench.pad.lift()
    await bench.expect(Gone)
    bench.pad.put(sun_card(2))
    await bench.expect(Sensed, Finished)


async def test_another_card_need_not_wait_for_an_empty_field(bench: Bench) -> None:
    await bench.tap(sun_card(1))
    bench.pad.put(sun_card(2))
    bench.reader.arm(by_itself=True)
    await bench.expect(Sensed, Finished)


async def test_a_card_that_lies_there_when_the_reader_opens_has_to_leave_first(pad: Pad) -> None:
    card = sun_card()
    pad.put(card)
    await asyncio.to_thread(_until_found, pad)
    async with opened(pad) as bench:
        bench.reader.arm(by_itself=True)
        assert await bench.expect(Lies) == [Lies(unseen=True)]
        await bench.stays_quiet(0.3)
        assert card.counter == 0
        pad.lift()
        await bench.expect(Gone)
        assert isinstance(await bench.tap(card), Finished)


def _until_found(pad: Pad) -> None:
    """pcscd takes a moment to see that a card has come."""
    driver = make_driver(pad.driver, pad.port)
    driver.open()
    while driver.look_again() is None:
        pass
    driver.close()


async def test_another_card_may_follow_at_once(bench: Bench) -> None:
    for number in range(5):
        assert isinstance(await bench.tap(sun_card(number)), Finished)


async def test_nothing_is_read_while_disarmed(bench: Bench) -> None:
    bench.reader.arm()
    bench.reader.disarm()
    card = sun_card()
    bench.pad.put(card)
    await bench.stays_quiet(0.6)
    assert card.counter == 0
    bench.reader.arm()
    await bench.expect(Sensed, Finished)


async def test_a_reader_that_hangs_is_lost_and_comes_back(bench: Bench) -> None:
    bench.reader.arm()
    bench.pad.hang()
    bench.pad.put(sun_card(1))
    async with asyncio.timeout(NOTICED_S):
        await bench.until(Lost)
    assert bench.reader.trouble is not None
    bench.pad.power_cycle()
    bench.pad.lift()
    async with asyncio.timeout(HEALED_S):
        await bench.until(Opened)
    assert isinstance(await bench.tap(sun_card(2)), Finished)


async def test_a_reader_that_is_unplugged_is_noticed_and_found_again(bench: Bench) -> None:
    bench.pad.unplug()
    async with asyncio.timeout(NOTICED_S):
        await bench.expect(Lost)
    bench.pad.plug_in()
    async with asyncio.timeout(HEALED_S):
        await bench.until(Opened)
    assert isinstance(await bench.tap(sun_card()), Finished)


async def test_a_stopped_reader_leaves_no_thread(bench: Bench) -> None:
    await bench.reader.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "reader"]


async def test_a_pcscd_that_is_restarted_costs_no_tap_after_it(pcsc: PcscPad) -> None:
    async with opened(pcsc) as bench:
        bench.reader.arm()
        pcsc.simulator.restart_daemon()
        async with asyncio.timeout(NOTICED_S):
            await bench.expect(Lost)
        async with asyncio.timeout(HEALED_S):
            await bench.expect(Opened)
        assert isinstance(await bench.tap(sun_card()), Finished)


async def test_a_reader_that_only_its_power_can_help_gets_it_cut(pn532: Pn532Pad) -> None:
    resets: list[None] = []

    def reset() -> None:
        resets.append(None)
        pn532.power_cycle()

    async with opened(pn532, reset=reset) as bench:
        pn532.hang()
        await bench.expect(Lost)
        async with asyncio.timeout(HEALED_S):
            await bench.until(Opened)
        assert isinstance(await bench.tap(sun_card()), Finished)
    assert len(resets) == 1
