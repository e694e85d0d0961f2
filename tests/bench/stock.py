"""Accepted payments in bulk, for settlement that is measured alone.

By the ledger's own functions, so that its invariants hold; only the hold and the spend of several
payments of one card are taken in one step. Cards pay in turn: a payer that comes twice in one
transaction is cheaper there (EIP-2929: its balance is warm), and the peers' payers take turns too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from sqlalchemy import Connection

from taprail_common.ids import new_id
from taprail_gateway.ledger import transitions
from tests.support.ledger_fixtures import DAY
from tests.support.settle_shop import DAILY_LIMIT_UNITS, Shop

UNITS: Final = 10
_AT_ONCE: Final = 1_000


def _say_nothing(_sold: int) -> None:
    pass


async def sell_in_bulk(shop: Shop, count: int, say: Callable[[int], None] = _say_nothing) -> None:
    """Accept so many payments, cards in turn; `say` hears how many there are so far."""
    cards = len(shop.registry.cards)
    for sold in range(0, count, _AT_ONCE):
        turns = [number % cards for number in range(sold, min(sold + _AT_ONCE, count))]
        await shop.ledger.write(partial(accept_in_turn, shop=shop, turns=turns))
        shop.wakeups.pending.ring()
        say(sold + len(turns))


def accept_in_turn(connection: Connection, shop: Shop, turns: list[int]) -> list[str]:
    """Accept a payment by each of these cards (their places in the registry); the payments' ids."""
    for card, times in Counter(turns).items():
        owner, units = shop.registry.cards[card], times * UNITS
        assert transitions.hold(connection, owner.account, units), "too small a balance"
        assert transitions.reserve_spend(connection, owner.uuid, DAY, units, DAILY_LIMIT_UNITS)
    rows = [shop.registry.payment(new_id("req"), card=card, amount_units=UNITS) for card in turns]
    transitions.accept(connection, rows, shop.clock.now_ms())
    return [str(row["id"]) for row in rows]
