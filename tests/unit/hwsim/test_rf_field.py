"""The space before the antenna when two cards are in it."""

from __future__ import annotations

from typing import Any

import pytest

from taprail_hwsim.cards import Ntag21x, Ntag424
from taprail_hwsim.pn532.rf_field import RfField

RATS, HLTA, DESELECT = b"\xe0\x80", b"\x50\x00", b"\xc2"
# The first byte in which they differ is the last: 02 has its second bit set, 01 its first.
LOW, HIGH = bytes.fromhex("04A1B2C3D4E502"), bytes.fromhex("04A1B2C3D4E501")


def field_with(*cards: Ntag424 | Ntag21x) -> tuple[RfField, list[tuple[str, dict[str, Any]]]]:
    told: list[tuple[str, dict[str, Any]]] = []
    field = RfField(lambda name, details: told.append((name, details)))
    field.put(cards[0], None)
    for card in cards[1:]:
        field.put_beside(card)
    field.switch(on=True)
    return field, told


def sun(uid: bytes) -> Ntag424:
    return Ntag424(uid, bytes(16), bytes(16))


def test_anticollision_goes_on_with_the_card_that_sends_a_one_first() -> None:
    for first, second in ((LOW, HIGH), (HIGH, LOW)):
        field, _ = field_with(sun(first), sun(second))
        found = field.activate(b"")
        assert found is not None
        assert found.uid == HIGH


def test_a_card_in_its_dialogue_leaves_the_next_request_to_the_other() -> None:
    cards = sun(LOW), sun(HIGH)
    field, _ = field_with(*cards)
    assert field.activate(b"") is cards[1]
    assert field.exchange(RATS) is not None
    assert field.activate(b"") is cards[0]
    assert field.exchange(RATS) is not None
    assert field.activate(b"") is None
    answer = field.exchange(DESELECT)  # the one that was selected last has the word
    assert answer is not None
    assert field.activate(b"") is None  # halted, and the other one in its dialogue
    field.switch(on=False)
    field.switch(on=True)
    assert field.activate(b"") is cards[1]


def test_a_tag_is_silent_once_it_was_halted() -> None:
    tag = Ntag21x(HIGH)
    field, _ = field_with(tag)
    assert field.activate(b"") is tag
    assert field.exchange(HLTA) is None
    assert field.activate(b"") is None
    assert field.activate(HIGH) is None


def test_a_wanted_number_is_found_among_two() -> None:
    cards = sun(LOW), sun(HIGH)
    field, _ = field_with(*cards)
    assert field.activate(LOW) is cards[0]


def test_one_of_two_may_leave_while_the_other_goes_on() -> None:
    cards = sun(LOW), sun(HIGH)
    field, told = field_with(*cards)
    assert field.activate(b"") is cards[1]
    assert field.exchange(RATS) is not None
    session = field.session
    field.lift_one(cards[0])
    assert field.session == session
    assert field.exchange(b"\xb2") is not None
    field.lift_one(cards[1])
    assert field.session > session
    assert field.exchange(b"\xb2") is None
    assert field.card is None
    assert [name for name, _ in told].count("card_lifted") == 2
    with pytest.raises(ValueError, match="not in the field"):
        field.lift_one(cards[1])


def test_there_is_room_for_two_and_a_hand_takes_both() -> None:
    cards = sun(LOW), sun(HIGH)
    field, told = field_with(*cards)
    for another in (Ntag21x(HIGH), cards[0]):
        with pytest.raises(ValueError, match="holds 2 different cards"):
            field.put_beside(another)
    with pytest.raises(ValueError, match="already"):
        field.put(Ntag21x(HIGH), None)
    field.lift()
    assert field.card is None
    assert [name for name, _ in told][-2:] == ["card_lifted", "card_lifted"]
    assert str(told).find(HIGH.hex()) == -1
