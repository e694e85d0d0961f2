"""What is remembered of ten thousand cards that tap as often as people are regulars."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Final

import pytest

from taprail_common.wire import SunProof, TerminalPayment
from taprail_gateway import issuer, queue_health, registry
from tests.attack.victims import NEVER_SUSPICIOUS
from tests.integration.test_queue_status import STATUS, get
from tests.support.gateway_fixtures import TestCard, TestGateway, running_gateway

CARDS: Final = 10_000
TAPS: Final = 40_000
NOW: Final = datetime(2027, 1, 15, 8, tzinfo=UTC)


def taps_of(gateway: TestGateway) -> Iterator[TerminalPayment]:
    """Endless taps: the n-th card taps once where the first taps n times (Zipf)."""
    keys = gateway.ledger.read_now(lambda c: issuer.load(c, gateway.custody))
    chip = type(gateway.card("04FFFFFFFFFFFF").chip)
    uids = [bytes([4, 1]) + number.to_bytes(5, "big") for number in range(CARDS)]
    made: dict[int, TerminalPayment] = {}
    chance = random.Random(7)
    weights = list(accumulate(1 / rank for rank in range(1, CARDS + 1)))
    while True:
        (number,) = chance.choices(range(CARDS), cum_weights=weights)
        if number not in made:
            own = issuer.card_keys(keys, 1, uids[number])
            card = chip(uids[number], own.meta_read_key, own.file_read_key)
            picc, mac = card.sun_proof(1)
            made[number] = payment(SunProof(picc_data=picc, mac=mac))
        yield made[number]


def payment(proof: SunProof) -> TerminalPayment:
    return TerminalPayment(
        request_id="req-1",
        terminal_id="counter-1",
        merchant_id="kiosk",
        amount=100,
        currency="TUSD",
        tapped_at=NOW,
        accept_until=NOW + timedelta(seconds=15),
        proof=proof,
    )


async def test_of_ten_thousand_cards_nearly_all_are_known_in_spite_of_freezes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FRESH_S", "_SHARE"):
        monkeypatch.setattr(queue_health, name, 0)
    async with running_gateway(tmp_path, fraud=NEVER_SUSPICIOUS) as gateway:
        taps, proofs = taps_of(gateway), gateway.services.proofs
        regulars = [gateway.card(f"04AABBCCDDEE{n:02X}") for n in range(4)]
        assert (await get(gateway, STATUS))["cacheHitRate"] in {None, 0}
        minutes: list[float] = []
        for minute in range(4):
            for number in range(TAPS):
                assert proofs.evidence(next(taps)).problem is None
                if number % (TAPS // 8) == 0:
                    await _freeze_and_thaw(gateway, regulars[number % 4])
            gateway.clock.ahead_ms = (minute + 1) * 60_000
            minutes.append((await gateway.services.health.report()).hit_rate or 0)
        # The first minutes meet most cards for the first time; no freeze makes one forgotten.
        assert minutes == sorted(minutes)
        assert minutes[-1] > 0.95


async def _freeze_and_thaw(gateway: TestGateway, card: TestCard) -> None:
    for status, expected in (("frozen", 400), ("active", 200)):
        gateway.ledger.write_now(
            partial(registry.set_card_status, card_uuid=card.issued.card_uuid, status=status)
        )
        assert (await gateway.pay(card, amount=1)).status == expected
