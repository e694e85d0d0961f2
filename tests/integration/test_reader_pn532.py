"""What only a PN532 on a serial line can meet: noise, a wrong speed, a path that is no port."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from taprail_common.errors import OperatorError
from taprail_hwsim.pads import Pn532Pad
from taprail_terminal.readers import make_driver
from taprail_terminal.readers.polling import Finished
from tests.support.reader_fixtures import Bench, opened, sun_card


@pytest.fixture
async def bench(pn532: Pn532Pad) -> AsyncIterator[Bench]:
    async with opened(pn532) as bench:
        yield bench


async def test_noise_on_the_line_does_not_lose_the_reader(bench: Bench, pn532: Pn532Pad) -> None:
    bench.reader.arm()
    for noise in (b"\x00", b"\xff\x00\xff", b"\x00\x00\xff\x01"):
        pn532.simulator.send_noise(noise)
        await asyncio.sleep(0.05)
    assert isinstance(await bench.tap(sun_card()), Finished)


async def test_a_chip_left_at_high_speed_by_a_killed_process_is_recovered(pn532: Pn532Pad) -> None:
    code = (
        "import sys, time; from taprail_terminal.readers import make_driver; "
        "make_driver('pn532', sys.argv[1]).open(); print('open', flush=True); time.sleep(60)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, pn532.port, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"open\n"
    process.kill()
    await process.wait()
    assert pn532.simulator.baud == 921600
    async with opened(pn532):
        pass
    assert pn532.simulator.baud == 115200


@pytest.mark.parametrize("path", ["/dev/no-such-reader", "/dev/x; true", "COM1"])
def test_a_port_that_cannot_be_is_refused_at_start(path: str) -> None:
    with pytest.raises(OperatorError, match="reader"):
        make_driver("pn532", path).check()


def test_a_driver_that_nobody_knows_is_refused() -> None:
    with pytest.raises(OperatorError, match="pn532"):
        make_driver("pn999", "/dev/null")
