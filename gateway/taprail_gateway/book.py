"""The rows that a group of requests is decided on, loaded at once and kept up to date in memory.

A later request of the same group must see what an earlier one took, so the book carries counters,
holds and spends forward while the group is decided. In the end it writes them by guarded
statements, one executemany each: a guard that does not hold raises, and nothing of the group is
stored. What decides is therefore the SQL, not the copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, select

from taprail_gateway.authorize import Card, Facts, PaymentRequest, Profile, Terminal, spend_day
from taprail_gateway.ledger import reservations, schema
from taprail_gateway.ledger.prepared import Lookup
from taprail_gateway.ledger.reservations import Spend

_c, _a, _t, _m, _s = (
    schema.cards.c,
    schema.accounts.c,
    schema.terminals.c,
    schema.merchants.c,
    schema.card_spend.c,
)
_CARD_COLUMNS: Final = (
    _c.uuid,
    _c.user_id,
    _c.account,
    _c.profile,
    _c.status,
    _c.single_limit_units,
    _c.daily_limit_units,
    _c.time_zone,
    _c.sun_counter,
    _c.key_version,
)
_CARDS: Final = select(*_CARD_COLUMNS, _c.uid_digest, _a.balance_units - _a.held_units).join_from(
    schema.cards, schema.accounts, _c.account == _a.address
)
_BY_DIGEST: Final = Lookup(_CARDS, (_c.uid_digest,))
_BY_UUID: Final = Lookup(_CARDS, (_c.uuid,))
_TERMINALS: Final = Lookup(
    select(_t.id, _t.status, _t.merchant_id, _m.status, _m.account).join_from(
        schema.terminals, schema.merchants, _t.merchant_id == _m.id
    ),
    (_t.id,),
)
_SPENDS: Final = Lookup(select(_s.card_uuid, _s.day, _s.spent_units), (_s.card_uuid, _s.day))


@dataclass(frozen=True, slots=True)
class _Cards:
    """Cards by uuid, the uuid of each UID digest, and what each account has free."""

    by_uuid: dict[str, Card]
    uuid_of: dict[str, str]
    available_units: dict[str, int]


class Book:
    """Cards, terminals, spends and available funds of one group. Use `load`."""

    def __init__(
        self,
        cards: _Cards,
        terminals: Mapping[str, Terminal],
        days: Mapping[str, str],
        spent_units: dict[tuple[str, str], int],
    ) -> None:
        """`days` by time zone, `spent_units` by card and day."""
        self._cards = cards
        self._terminals = terminals
        self._days = days
        self._spent_units = spent_units
        self._counters: dict[str, int] = {}
        self._holds: dict[str, int] = {}
        self._spends: dict[tuple[str, str], Spend] = {}

    @classmethod
    def load(cls, connection: Connection, requests: Sequence[PaymentRequest], now_ms: int) -> Book:
        """Read all rows that these requests need, by three statements."""
        cards = _load_cards(connection, requests)
        zones = {card.time_zone for card in cards.by_uuid.values()}
        days = {zone: spend_day(now_ms, zone) for zone in zones}
        keys = [(card.uuid, days[card.time_zone]) for card in cards.by_uuid.values()]
        spent_units = _load_spends(connection, keys)
        return cls(cards, _load_terminals(connection, requests), days, spent_units)

    def facts(self, request: PaymentRequest) -> Facts:
        """What a request is decided on, including what its group has taken so far."""
        terminal = self._terminals.get(request.terminal_id)
        card = self._card(request)
        if card is None:
            return Facts(None, terminal)
        spent_units = self._spent_units.get((card.uuid, self._days[card.time_zone]), 0)
        return Facts(card, terminal, spent_units, self._cards.available_units[card.account])

    def advance(self, card: Card, counter: int) -> None:
        """Use up a tap: the card's counter is now this."""
        self._counters[card.uuid] = counter

    def reserve(self, card: Card, amount_units: int) -> str:
        """Take funds and the day's spend; gives the day."""
        day = self._days[card.time_zone]
        key = (card.uuid, day)
        self._spent_units[key] = self._spent_units.get(key, 0) + amount_units
        self._cards.available_units[card.account] -= amount_units
        self._holds[card.account] = self._holds.get(card.account, 0) + amount_units
        taken = self._spends[key].units if key in self._spends else 0
        self._spends[key] = Spend(card.uuid, day, taken + amount_units, card.daily_limit_units)
        return day

    def store(self, connection: Connection) -> None:
        """Write what was taken; raises GuardError when a row is not as it was read."""
        reservations.advance_counters(connection, self._counters)
        reservations.hold_all(connection, self._holds)
        reservations.reserve_all(connection, list(self._spends.values()))

    def _card(self, request: PaymentRequest) -> Card | None:
        evidence = request.evidence
        if evidence.profile is Profile.APP:
            card = self._cards.by_uuid.get(evidence.card_uuid or "")
        else:
            uuid = self._cards.uuid_of.get(evidence.uid_digest or "")
            card = self._cards.by_uuid[uuid] if uuid is not None else None
        if card is not None and card.uuid in self._counters:
            return replace(card, sun_counter=self._counters[card.uuid])
        return card


def _load_cards(connection: Connection, requests: Sequence[PaymentRequest]) -> _Cards:
    cards = _Cards({}, {}, {})
    evidence = [request.evidence for request in requests]
    digests = {(e.uid_digest,) for e in evidence if e.uid_digest is not None}
    uuids = {(e.card_uuid,) for e in evidence if e.profile is Profile.APP}
    rows = _BY_DIGEST.rows(connection, list(digests)) + _BY_UUID.rows(connection, list(uuids))
    for *columns, digest, available in rows:
        card = Card(*columns)
        cards.by_uuid[card.uuid] = card
        cards.uuid_of[digest] = card.uuid
        cards.available_units[card.account] = available
    return cards


def _load_terminals(
    connection: Connection, requests: Sequence[PaymentRequest]
) -> dict[str, Terminal]:
    ids = {(request.terminal_id,) for request in requests}
    rows = _TERMINALS.rows(connection, list(ids))
    return {terminal.id: terminal for terminal in (Terminal(*row) for row in rows)}


def _load_spends(
    connection: Connection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    return {(card, day): units for card, day, units in _SPENDS.rows(connection, keys)}
