"""A tap is worth one payment, however many requests carry it and whoever takes them at once.

Hypothesis deals taps into requests, gateways and orders; on a file there is one gateway, on a
server there are two. Of each card the newest tap is accepted exactly once and no older one twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from taprail_gateway.audit_check import check_audit
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.invariants import check_invariants
from tests.attack.victims import NEVER_SUSPICIOUS
from tests.support.gateway_fixtures import Reply, TestCard, TestGateway, gateway_beside
from tests.support.gateway_fixtures import running_gateway as running

CARDS = 3
TAPS = 3
Deal = list[tuple[int, int, int]]
"""Card, tap of this card in this round, and a number that says which gateway gets it."""

deals = st.lists(
    st.tuples(st.integers(0, CARDS - 1), st.integers(0, TAPS - 1), st.integers(0, 7)),
    min_size=1,
    max_size=16,
)


@dataclass
class Rush:
    """The gateways on one ledger, their cards, and what was accepted before."""

    gateways: Sequence[TestGateway]
    cards: Sequence[TestCard]
    accepted: int = 0

    async def play(self, deal: Deal) -> None:
        """Post everything at once, and look at what came back."""
        taps = [[card.tap() for _ in range(TAPS)] for card in self.cards]
        posts = [self._post(gateway, taps[card][tap]) for card, tap, gateway in deal]
        replies = await asyncio.gather(*posts)
        told = Counter(
            (card, tap) for (card, tap, _), each in zip(deal, replies, strict=True) if charges(each)
        )
        for card in range(CARDS):
            dealt = {tap for owner, tap, _ in deal if owner == card}
            if dealt:
                assert told[card, max(dealt)] == 1
        assert all(times == 1 for times in told.values())
        self.accepted += told.total()
        assert self.gateways[0].rows(schema.payments) == self.accepted

    async def _post(self, number: int, proof: dict[str, str]) -> Reply:
        gateway = self.gateways[number % len(self.gateways)]
        return await gateway.post(gateway.request(proof, amount=1))


def charges(reply: Reply) -> bool:
    code = reply.json.get("reasonCode")
    assert code in {None, "card_replayed"}
    return code is None


@asynccontextmanager
async def rush(folder: Path, ledger_url: str, gateways: int) -> AsyncIterator[Rush]:
    async with AsyncExitStack() as exits:
        enter = exits.enter_async_context
        first = await enter(running(folder, ledger_url=ledger_url, fraud=NEVER_SUSPICIOUS))
        all_of_them = [first]
        while len(all_of_them) < gateways:
            all_of_them.append(await enter(gateway_beside(first, ledger_url)))
        yield Rush(all_of_them, [first.card(f"04AABBCCDDEE{n:02X}") for n in range(CARDS)])


@pytest.mark.parametrize(("ledger_engine", "gateways"), [("sqlite", 1), ("postgresql", 2)])
def test_a_tap_is_accepted_exactly_once(tmp_path: Path, ledger_url: str, gateways: int) -> None:
    opened = rush(tmp_path, ledger_url, gateways)
    with asyncio.Runner() as runner:
        at = runner.run(opened.__aenter__())

        @given(deals)
        @settings(max_examples=25, phases=(Phase.generate,))
        def rushes(deal: Deal) -> None:
            runner.run(at.play(deal))

        try:
            rushes()
            first = at.gateways[0]
            assert first.ledger.read_now(check_invariants) == []
            report = first.ledger.read_now(lambda c: check_audit(c, first.public_key))
            assert report.problems == []
        finally:
            runner.run(opened.__aexit__(None, None, None))
