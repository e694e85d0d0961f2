"""The rows that a group of requests is decided on, loaded at once and kept up to date in memory.

A later request of the same group must see what an earlier one took, so the book carries counters,
holds, spends and activities forward while the group is decided. In the end it writes them by
guarded statements, one executemany each: a guard that does not hold raises, and nothing of the
group is stored. What decides is therefore the SQL, not the copy.

On a server that several gateways share, cards and then terminals are locked before anything is
read, in the order of their keys. So a group waits for another one of the same cards and then reads
what that has left, instead of finding out at the guards; and what was frozen is seen frozen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Connection, select

from taprail_gateway.activity import UNUSED, Activity
from taprail_gateway.authorize import Card, Facts, PaymentRequest, Profile, Terminal, spend_day
from taprail_gateway.charges import Charge, ending
from taprail_gateway.ledger import activities, card_pins, charges, reservations, schema
from taprail_gateway.ledger.card_pins import Tries
from taprail_gateway.ledger.charges import Tapped
from taprail_gateway.ledger.offline import OfflineTaps
from taprail_gateway.ledger.prepared import Lookup
from taprail_gateway.ledger.reservations import Spend
from taprail_gateway.ledger.schema_base import literal
from taprail_gateway.offline_policy import NOWHERE
from taprail_gateway.pins import CardPin

_c, _a, _t, _m, _s, _u = (
    schema.cards.c,
    schema.accounts.c,
    schema.terminals.c,
    schema.merchants.c,
    schema.card_spend.c,
    schema.activity.c,
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
    _c.created_at_ms,
    _c.expires_at_ms,
    schema.users.c.frozen_at_ms,
    _c.day_of,
)
_TERMINAL_COLUMNS: Final = (
    *(_t.id, schema.terminal_status, _t.merchant_id),
    *(_m.status, _m.account),
)
_CARDS: Final = (
    select(
        *_CARD_COLUMNS,
        _c.uid_digest,
        _a.balance_units - _a.held_units,
        *card_pins.COLUMNS,
        *activities.COLUMNS,
    )
    .join_from(schema.cards, schema.accounts, _c.account == _a.address)
    .join(schema.users, _c.user_id == schema.users.c.id)
    .outerjoin(schema.card_pins, schema.card_pins.c.card_uuid == _c.uuid)
    .outerjoin(schema.activity, (_u.kind == literal(activities.CARD)) & (_u.id == _c.uuid))
)
_BY_DIGEST: Final = Lookup(_CARDS, (_c.uid_digest,))
_BY_UUID: Final = Lookup(_CARDS, (_c.uuid,))
_TERMINALS: Final = Lookup(
    select(*_TERMINAL_COLUMNS, *activities.COLUMNS)
    .join_from(schema.terminals, schema.merchants, _t.merchant_id == _m.id)
    .outerjoin(schema.activity, (_u.kind == literal(activities.TERMINAL)) & (_u.id == _t.id)),
    (_t.id,),
)
_SPENDS: Final = Lookup(select(_s.card_uuid, _s.day, _s.spent_units), (_s.card_uuid, _s.day))
# Not FOR UPDATE: rows that refer to these (a payment, a new card of the user) need not wait.
_LOCK_CARDS: Final = Lookup(
    select(_c.uuid).order_by(_c.uuid).with_for_update(key_share=True), (_c.uuid,)
)
_LOCK_TERMINALS: Final = Lookup(
    select(_t.id).order_by(_t.id).with_for_update(key_share=True), (_t.id,)
)


@dataclass(frozen=True, slots=True)
class _Cards:
    """Cards by uuid, the uuid of each UID digest, what each account has free, and their use."""

    by_uuid: dict[str, Card] = field(default_factory=dict)
    uuid_of: dict[str, str] = field(default_factory=dict)
    available_units: dict[str, int] = field(default_factory=dict)
    activities: dict[activities.Key, Activity] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Terminals:
    """Terminals by their ids, and their use."""

    by_id: dict[str, Terminal] = field(default_factory=dict)
    activities: dict[activities.Key, Activity] = field(default_factory=dict)


class Book:
    """Cards, terminals, spends and available funds of one group. Use `load`."""

    def __init__(
        self,
        cards: _Cards,
        terminals: _Terminals,
        days: Mapping[str, str],
        spent_units: dict[tuple[str, str], int],
        asked: dict[str, Charge],
        offline: OfflineTaps,
    ) -> None:
        """`days` by time zone, `spent_units` by card and day, charges by their ids."""
        self._cards = cards
        self._terminals = terminals
        self._days = days
        self._spent_units = spent_units
        self._asked = asked
        self.offline = offline
        self._activities = cards.activities | terminals.activities
        self._counters: dict[str, int] = {}
        self._tries: dict[str, Tries] = {}
        self._holds: dict[str, int] = {}
        self._spends: dict[tuple[str, str], Spend] = {}
        self._used: dict[activities.Key, Activity] = {}

    @classmethod
    def load(cls, connection: Connection, requests: Sequence[PaymentRequest], now_ms: int) -> Book:
        """Read all rows that these requests need, by a fixed number of statements."""
        cards = _load_cards(connection, requests)
        zones = {card.time_zone for card in cards.by_uuid.values()}
        days = {zone: spend_day(now_ms, zone) for zone in zones}
        keys = [(card.counted_as, days[card.time_zone]) for card in cards.by_uuid.values()]
        spent_units = _load_spends(connection, keys)
        named = {request.charge_id for request in requests} - {None}
        asked = charges.find_all(connection, sorted(map(str, named)))
        offline = OfflineTaps.load(connection, requests)
        return cls(cards, _load_terminals(connection, requests), days, spent_units, asked, offline)

    def facts(self, request: PaymentRequest) -> Facts:
        """What a request is decided on, including what its group has taken so far."""
        terminal = self._terminals.by_id.get(request.terminal_id)
        terminal_use = self._use(activities.TERMINAL, request.terminal_id)
        charge = self._asked.get(request.charge_id or "")
        offline = self.offline.standing(request) if request.is_offline else NOWHERE
        card = self._card(request)
        if card is None:
            return Facts(
                None, terminal, terminal_activity=terminal_use, charge=charge, offline=offline
            )
        return Facts(
            card,
            terminal,
            spent_units=self._spent_units.get((card.counted_as, self._days[card.time_zone]), 0),
            available_units=self._cards.available_units[card.account],
            card_activity=self._use(activities.CARD, card.uuid),
            terminal_activity=terminal_use,
            charge=charge,
            offline=offline,
        )

    def end_charge(self, charge: Charge, payment_id: str | None, code: str | None) -> Tapped:
        """Use a charge up by a tap, for the requests after it; what there is to store of it."""
        self._asked[charge.id] = replace(charge, status=ending(code))
        return Tapped(payment_id, code)

    def note_card(self, card: Card, now_ms: int, amount_units: int | None) -> None:
        """One more tap of this card; None for an amount when it was declined."""
        use = self._use(activities.CARD, card.uuid)
        self._used[activities.CARD, card.uuid] = use.after(
            now_ms, declined=amount_units is None, amount_units=amount_units
        )

    def note_terminal(self, terminal: Terminal, now_ms: int, *, declined: bool) -> None:
        """One more tap at this terminal."""
        use = self._use(activities.TERMINAL, terminal.id)
        self._used[activities.TERMINAL, terminal.id] = use.after(now_ms, declined=declined)

    def advance(self, card: Card, counter: int) -> None:
        """Use up a tap: the card's counter is now this."""
        self._counters[card.uuid] = counter

    def set_tries(self, card: Card, left: int) -> None:
        """Give a card so many tries of its PIN from now on; it is frozen without any."""
        if card.pin is None:
            raise AssertionError("nobody tries the PIN of a card that has none")
        earlier = self._tries.get(card.uuid)
        before = card.pin.tries_left if earlier is None else earlier.before
        self._tries[card.uuid] = Tries(before, left, card.pin.set_at_ms)

    def reserve(self, card: Card, amount_units: int) -> str:
        """Take funds and the day's spend; gives the day."""
        day = self._days[card.time_zone]
        key = (card.counted_as, day)
        self._spent_units[key] = self._spent_units.get(key, 0) + amount_units
        self._cards.available_units[card.account] -= amount_units
        self._holds[card.account] = self._holds.get(card.account, 0) + amount_units
        taken = self._spends[key].units if key in self._spends else 0
        self._spends[key] = Spend(*key, taken + amount_units, card.daily_limit_units)
        return day

    def store(self, connection: Connection) -> None:
        """Write what was taken; raises GuardError when a row is not as it was read."""
        reservations.advance_counters(connection, self._counters)
        card_pins.take_tries(connection, self._tries)
        reservations.hold_all(connection, self._holds)
        reservations.reserve_all(connection, list(self._spends.values()))
        activities.store(connection, self._used)

    def _use(self, kind: str, name: str) -> Activity:
        key = (kind, name)
        return self._used.get(key) or self._activities.get(key) or UNUSED

    def _card(self, request: PaymentRequest) -> Card | None:
        evidence = request.evidence
        if evidence.profile is Profile.APP:
            card = self._cards.by_uuid.get(evidence.card_uuid or "")
        else:
            uuid = self._cards.uuid_of.get(evidence.uid_digest or "")
            card = self._cards.by_uuid[uuid] if uuid is not None else None
        if card is not None and card.uuid in self._counters:
            card = replace(card, sun_counter=self._counters[card.uuid])
        tries = None if card is None else self._tries.get(card.uuid)
        if card is None or tries is None or card.pin is None:
            return card
        status = card.status if tries.left else "frozen"
        return replace(card, status=status, pin=replace(card.pin, tries_left=tries.left))


def lock(connection: Connection, requests: Sequence[PaymentRequest]) -> None:
    """Have the cards and terminals of these requests alone until the transaction's end.

    On SQLite whoever writes has everything alone.
    """
    if connection.dialect.name == "sqlite":
        return
    cards = _load_cards(connection, requests).by_uuid
    _LOCK_CARDS.rows(connection, [(uuid,) for uuid in sorted(cards)])
    _LOCK_TERMINALS.rows(connection, sorted({(request.terminal_id,) for request in requests}))


def _load_cards(connection: Connection, requests: Sequence[PaymentRequest]) -> _Cards:
    cards = _Cards()
    evidence = [request.evidence for request in requests]
    digests = {(e.uid_digest,) for e in evidence if e.uid_digest is not None}
    uuids = {(e.card_uuid,) for e in evidence if e.profile is Profile.APP}
    rows = _BY_DIGEST.rows(connection, list(digests)) + _BY_UUID.rows(connection, list(uuids))
    wide = len(_CARD_COLUMNS)
    for row in rows:
        digest, available, above, left, set_at_ms = row[wide : wide + 5]
        pin = None if above is None else CardPin(above, left, set_at_ms)
        card = replace(Card(*row[:wide]), pin=pin) if pin else Card(*row[:wide])
        cards.by_uuid[card.uuid] = card
        cards.uuid_of[digest] = card.uuid
        cards.available_units[card.account] = available
        _remember(cards.activities, (activities.CARD, card.uuid), row[wide + 5 :])
    return cards


def _load_terminals(connection: Connection, requests: Sequence[PaymentRequest]) -> _Terminals:
    terminals = _Terminals()
    ids = {(request.terminal_id,) for request in requests}
    wide = len(_TERMINAL_COLUMNS)
    for row in _TERMINALS.rows(connection, list(ids)):
        terminal = Terminal(*row[:wide])
        terminals.by_id[terminal.id] = terminal
        _remember(terminals.activities, (activities.TERMINAL, terminal.id), row[wide:])
    return terminals


def _remember(
    found: dict[activities.Key, Activity], key: activities.Key, columns: Sequence[Any]
) -> None:
    # All unset: it was joined from outside, and this one was never used.
    if columns[0] is not None:
        found[key] = Activity(*columns)


def _load_spends(
    connection: Connection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    return {(card, day): units for card, day, units in _SPENDS.rows(connection, keys)}
