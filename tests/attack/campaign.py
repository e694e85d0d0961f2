"""Plays attacks, compares every answer with what the kind says, and looks at the books in the end.

The books must hold the honest payments to the last unit, one verdict for each letter that was
authentic, byte for byte, and nothing else.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, select

from taprail_common.errors import LinkError, SignatureError
from taprail_common.signing import Domain, verify
from taprail_gateway.audit_check import check_audit
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.invariants import check_invariants
from taprail_terminal.gateway_link import believe
from taprail_terminal.outbox import Evidence, OutboxRow
from tests.attack import signatures, strangers, taps, tills
from tests.attack.doors import Door
from tests.attack.letters import Expected, Kind, Letter, Step, Told
from tests.attack.scene import Scene
from tests.attack.victims import ACCOUNTS, Shop, Victim

KINDS: Final = (*taps.KINDS, *signatures.KINDS, *tills.KINDS, *strangers.KINDS)
_AT_A_TIME: Final = 40
"""Attacks under way: fewer than a group commit takes, so that letters of one attack share one."""
_MOST_PROBLEMS: Final = 20
_POSTED_AGAIN: Final = 3_000

Key = tuple[str | None, bytes, str, str]


@dataclass
class Attack:
    """One play of a kind: the steps that are still to come."""

    kind: Kind
    card: Victim
    steps: list[Step]


@dataclass
class Campaign:
    """`problems` are sentences; empty when everything was answered as it must be."""

    shop: Shop
    door: Door
    rng: random.Random
    problems: list[str] = field(default_factory=list)
    played: Counter[str] = field(default_factory=Counter)
    attacks: int = 0
    """Letters that must not move money, and did not, unless `problems` says so."""
    first: dict[Key, Told] = field(default_factory=dict)
    decided: list[Letter] = field(default_factory=list)
    charged: list[Letter] = field(default_factory=list)

    async def run(self, attacks: int, *, seconds: float = float("inf")) -> None:
        """Play every kind before any a second time, until so many letters were posted."""
        end_s = time.monotonic() + seconds
        kinds = [kind for kind in KINDS if self.door.has_tokens or not kind.by_app]
        while self.attacks < attacks and time.monotonic() < end_s:
            deck = self.rng.sample(kinds, len(kinds))
            while deck:
                await self._play(list(self._dealt(deck)))
            if len(self.problems) >= _MOST_PROBLEMS:
                return

    async def again_after_an_amnesty(self) -> None:
        """Whatever was answered is answered the same, when nothing stands against it any more."""
        self.shop.have_mercy()
        letters = list(self.first.items())
        for (sender, body, signature, bearer), told in self.rng.sample(
            letters, min(len(letters), _POSTED_AGAIN)
        ):
            letter = Letter(body, sender, signature, bearer)
            ((again,),) = await self.door.post([[letter]])
            if (again.status, again.signature) != (told.status, told.signature):
                self._problem(f"after an amnesty {body!r} got {again}, at first {told}")

    def verdicts_of_others(self, pairs: int) -> int:
        """Show terminals verdicts about other requests; how many were not believed."""
        key = self.shop.gateway.public_key
        found = 0
        for _ in range(pairs):
            asked, about = self.rng.sample(self.decided, 2)
            told = self.first[_key(about)]
            fields = asked.fields
            row = OutboxRow(
                fields["requestId"],
                fields["amount"],
                fields["currency"],
                asked.body,
                asked.signature,
                0,
            )
            try:
                believe(key, fields["terminalId"], row, Evidence(told.body, told.signature or ""))
            except (SignatureError, LinkError):
                found += 1
        return found

    # --- playing ------------------------------------------------------------------------------

    def _dealt(self, deck: list[Kind]) -> Iterator[Attack]:
        """The next attacks of the deck, each with a card that no other one uses meanwhile."""
        free = {sort: self.rng.sample(cards, len(cards)) for sort, cards in self.shop.cards.items()}
        for _ in range(_AT_A_TIME):
            if not deck or len(free[deck[-1].card]) < 2:
                return
            kind = deck.pop()
            card = free[kind.card].pop()
            scene = Scene(self.shop, self.rng, card, other=self.rng.choice(free[kind.card]))
            self.played[kind.name] += 1
            yield Attack(kind, card, list(kind.play(scene)))

    async def _play(self, attacks: list[Attack]) -> None:
        while attacks:
            parts = [each.steps[: self.rng.randint(1, len(each.steps))] for each in attacks]
            told = await self.door.post([[letter for letter, _ in part] for part in parts])
            for attack, part, answers in zip(attacks, parts, told, strict=True):
                del attack.steps[: len(part)]
                for (letter, expected), answer in zip(part, answers, strict=True):
                    self._look_at(attack.kind, letter, expected, answer)
            attacks = [each for each in attacks if each.steps]

    def _look_at(self, kind: Kind, letter: Letter, expected: Expected, told: Told) -> None:
        self.attacks += not expected.charges
        first = self.first.setdefault(_key(letter), told)
        if expected.is_again:
            wrong = (told.status, told.body, told.signature) != (
                first.status,
                first.body,
                first.signature,
            )
        else:
            wrong = (told.status, self._code(letter, told)) != (expected.status, expected.code)
            wrong |= expected.is_verdict == (told.signature is None)
            self._note(letter, expected)
        if wrong:
            self._problem(f"{kind.name}: {letter.fields} got {told}, not {expected}")

    def _code(self, letter: Letter, told: Told) -> str | None:
        """The reason, of a verdict that is the gateway's about this very letter."""
        if told.signature is None:
            return told.code
        key = self.shop.gateway.public_key
        verify(key, Domain.VERDICT, told.body, told.signature, about=letter.body)
        verdict, asked = json.loads(told.body), letter.fields
        names = ("requestId", "terminalId", "amount")
        if any(verdict[name] != asked[name] for name in names):
            return "a verdict about another request"
        reason: str | None = verdict.get("reasonCode")
        return reason

    def _note(self, letter: Letter, expected: Expected) -> None:
        """What the books must say of it."""
        if expected.is_verdict:
            self.decided.append(letter)
        if letter.card is not None and letter.counter is not None and expected.uses_up_the_tap:
            letter.card.used = max(letter.card.used, letter.counter)
        if expected.charges and letter.card is not None:
            letter.card.paid_units += letter.fields["amount"]
            self.charged.append(letter)

    def _problem(self, text: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)

    # --- the books ----------------------------------------------------------------------------

    def audited(self) -> list[str]:
        """What is wrong with the ledger, beside the problems found on the way."""
        return self.shop.gateway.ledger.read_now(lambda c: list(self._wrong(c)))

    def _wrong(self, connection: Connection) -> Iterator[str]:
        yield from check_invariants(connection)
        yield from check_audit(connection, self.shop.gateway.public_key).problems
        for name, found, due in (
            ("payments", _payments(connection), sorted(map(_payment, self.charged))),
            ("verdicts", _verdicts(connection), sorted(map(_request, self.decided))),
            ("cards", _cards(connection), sorted(map(_card, self.shop.victims))),
        ):
            if found != due:
                extra, missing = set(found) - set(due), set(due) - set(found)
                yield f"{name}: not asked for {sorted(extra)[:5]}, missing {sorted(missing)[:5]}"


def _key(letter: Letter) -> Key:
    return letter.sender, letter.body, letter.signature, letter.bearer


Row = tuple[object, ...]


def _payments(connection: Connection) -> Sequence[Row]:
    p = schema.payments.c
    columns = (p.request_id, p.terminal_id, p.card_uuid, p.payer, p.payee, p.amount_units)
    return sorted(tuple(row) for row in connection.execute(select(*columns)))


def _payment(letter: Letter) -> Row:
    fields, card = letter.fields, letter.card
    if card is None:
        raise AssertionError("nobody pays without a card")
    who = (fields["requestId"], fields["terminalId"], card.uuid, card.account)
    return (*who, ACCOUNTS[fields["merchantId"]], fields["amount"])


def _verdicts(connection: Connection) -> Sequence[Row]:
    v = schema.verdicts.c
    rows = connection.execute(select(v.request_body, v.request_signature))
    return sorted((bytes(body), signature or "") for body, signature in rows)


def _request(letter: Letter) -> Row:
    return letter.body, letter.signature


def _cards(connection: Connection) -> Sequence[Row]:
    c, a, s = schema.cards.c, schema.accounts.c, schema.card_spend.c
    statement = (
        select(c.uuid, c.sun_counter, a.held_units, s.spent_units)
        .join_from(schema.cards, schema.accounts, c.account == a.address)
        .outerjoin(schema.card_spend, s.card_uuid == c.uuid)
    )
    rows = connection.execute(statement)
    return sorted((uuid, used, held, spent or 0) for uuid, used, held, spent in rows)


def _card(card: Victim) -> Row:
    return card.uuid, card.used, card.paid_units, card.paid_units
