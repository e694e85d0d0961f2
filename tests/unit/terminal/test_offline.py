"""What may be taken while the gateway is away: the table of the policy, and its durable count."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from taprail_common.offline_wire import OfflinePolicy
from taprail_common.signing import Domain, sign
from taprail_common.wire import CLOCK_SKEW_MS, SigningTerms, from_ms
from taprail_terminal.offline import (
    Exposure,
    Moment,
    OfflineNo,
    OfflineRefusedError,
    believed,
    objection,
)
from taprail_terminal.outbox import Evidence, Outbox, OutboxRow, RequestState

NOW, AGE = 1_800_000_000_000, 3_600_000
YEARS = 3 * 366 * 86_400_000
KEY, SELLER = SigningKey.generate(), ("t1", "cafe", "USDC")
POLICY = OfflinePolicy(
    terminal_id="t1",
    merchant_id="cafe",
    currency="USDC",
    version=1,
    issued_at=from_ms(NOW - AGE // 2),
    per_tap_units=10,
    max_count=3,
    sum_units=25,
    max_age_s=AGE // 1000,
    revision="1-0",
    frozen=("0123456789abcdef",),
    signing=SigningTerms(
        chain_id=1,
        token="0x" + "ab" * 20,
        token_name="USD Coin",
        token_version="2",
        payee="0x" + "cd" * 20,
    ),
)
RIGHT, NONE = Moment(NOW, NOW + 1_000), Exposure()


@pytest.mark.parametrize(
    ("exposure", "units", "moment", "no"),
    [
        (NONE, 10, RIGHT, None),
        (NONE, 10, Moment(NOW), None),
        (NONE, 11, RIGHT, OfflineNo.LIMIT),
        (Exposure(2, 15, NOW - 2, NOW - 1), 10, RIGHT, None),
        (Exposure(2, 16, NOW - 2, NOW - 1), 10, RIGHT, OfflineNo.SUM),
        (Exposure(3, 3, NOW - 2, NOW - 1), 1, RIGHT, OfflineNo.COUNT),
        (Exposure(1, 1, NOW - AGE, NOW - AGE), 1, RIGHT, OfflineNo.AGE),
        (NONE, 1, Moment(POLICY.good_until_ms), OfflineNo.EXPIRED),
        (NONE, 1, Moment(NOW + YEARS), OfflineNo.CLOCK),
        (NONE, 1, Moment(NOW - YEARS), OfflineNo.CLOCK),
        (NONE, 1, Moment(0), OfflineNo.CLOCK),
        (NONE, 1, Moment(NOW, NOW + CLOCK_SKEW_MS + 1), OfflineNo.CLOCK),
        # Set back, so that what waits would look younger than it is.
        (
            Exposure(1, 1, NOW + CLOCK_SKEW_MS + 1, NOW + CLOCK_SKEW_MS + 1),
            1,
            RIGHT,
            OfflineNo.CLOCK,
        ),
    ],
)
def test_each_bound(exposure: Exposure, units: int, moment: Moment, no: OfflineNo | None) -> None:
    assert objection(POLICY, exposure, units, moment) is no


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 15), st.integers(0, AGE // 3)), max_size=12))
def test_no_run_of_sales_passes_a_limit(sales: list[tuple[int, int]]) -> None:
    taken, at_ms = Exposure(), POLICY.issued_at_ms
    for units, later_ms in sales:
        at_ms += later_ms
        if objection(POLICY, taken, units, Moment(at_ms)) is None:
            oldest_ms = taken.oldest_at_ms or at_ms
            taken = Exposure(taken.count + 1, taken.units + units, oldest_ms, at_ms)
            assert units <= POLICY.per_tap_units
            assert at_ms < POLICY.good_until_ms
    assert taken.count <= POLICY.max_count
    assert taken.units <= POLICY.sum_units


def test_only_what_the_gateway_signed_for_this_terminal_is_believed() -> None:
    def kept(
        policy: OfflinePolicy, key: SigningKey = KEY, domain: Domain = Domain.OFFLINE_POLICY
    ) -> Evidence:
        return Evidence(policy.to_json(), sign(key, domain, policy.to_json()))

    good = kept(POLICY)
    assert believed(good, KEY.verify_key, SELLER) == POLICY
    forged = (
        kept(POLICY, SigningKey.generate()),
        kept(POLICY, domain=Domain.ANSWER),
        kept(POLICY.model_copy(update={"terminal_id": "t2"})),
        Evidence(good.body.replace(b'"maxCount":3', b'"maxCount":9'), good.signature),
        Evidence(b"", ""),
    )
    assert [believed(each, KEY.verify_key, SELLER) for each in forged] == [None] * len(forged)


def row(number: int, units: int = 10) -> OutboxRow:
    return OutboxRow(f"req_{number}", units, "USDC", b"{}", "", NOW + number, offline=True)


async def test_what_was_taken_is_counted_in_the_commit_that_takes_the_next(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    await outbox.open(NOW)

    async def sell(number: int) -> None:
        moment = Moment(NOW + number)
        await outbox.store(row(number), lambda taken: objection(POLICY, taken, 10, moment))

    # At once: none of them knows of the others before it is stored.
    results = await asyncio.gather(*map(sell, range(5)), return_exceptions=True)
    refused = [each.no for each in results if isinstance(each, OfflineRefusedError)]
    assert refused == [OfflineNo.SUM] * 3
    assert await outbox.exposure() == Exposure(2, 20, NOW, NOW + 1)
    await outbox.resolve("req_0", RequestState.DECLINED, Evidence(b"no", ""), NOW + 9)
    await outbox.resolve("req_1", RequestState.APPROVED, Evidence(b"yes", ""), NOW + 9)
    assert await outbox.exposure() == Exposure(lost_count=1, lost_units=10)
    await outbox.close()
    again = Outbox(tmp_path / "outbox.db")
    await again.open(NOW)
    assert (await again.exposure()).lost_units == 10
    await again.close()


_POWER_CUT = """
import asyncio, os, sys
from pathlib import Path
from taprail_terminal.outbox import Outbox, OutboxRow
async def main():
    outbox = Outbox(Path(sys.argv[1]))
    await outbox.open(0)
    await outbox.store(OutboxRow("req_1", 10, "USDC", b"{}", "", 1, offline=True), lambda _: None)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


async def test_a_power_cut_after_the_commit_loosens_no_limit(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    command = [sys.executable, "-c", _POWER_CUT, str(path)]
    done = await asyncio.to_thread(subprocess.run, command, check=False)
    assert done.returncode == -9
    outbox = Outbox(path)
    await outbox.open(0)
    assert await outbox.exposure() == Exposure(1, 10, 1, 1)
    (kept,) = await outbox.unseen()
    assert kept.offline
    assert kept.state is RequestState.STORED
    await outbox.close()
