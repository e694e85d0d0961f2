"""Every field of every answer of a card that is being written: at its length, under it, over it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taprail_gateway.personalize.chip import CardError
from taprail_gateway.personalize.layout import Mirror
from taprail_gateway.personalize.session import Wanted, personalize
from taprail_hwsim.cards import Ntag424Chip
from tests.unit.gateway.test_personalize import UID, assert_pays, numbers, wanted

Change = Callable[[bytes], bytes]

CHANGES: dict[str, Change] = {
    "one byte less": lambda answer: answer[1:],
    "one byte of data less": lambda answer: answer[:-3] + answer[-2:],
    "one byte more": lambda answer: b"\x00" + answer,
    "one byte of data more": lambda answer: answer[:-2] + b"\x00" + answer[-2:],
    "a block more": lambda answer: answer[:-2] + bytes(16) + answer[-2:],
    "the longest": lambda answer: bytes(256) + answer[-2:],
    "half a status": lambda answer: answer[:-1],
    "a status alone": lambda answer: answer[-2:],
    "nothing": lambda _answer: b"",
    "another status": lambda answer: answer[:-2] + b"\x91\x9d",
    "the other family's status": lambda answer: (
        answer[:-2] + (b"\x91\x00" if answer.endswith(b"\x90\x00") else b"\x90\x00")
    ),
    "its first bit": lambda answer: bytes([answer[0] ^ 0x80]) + answer[1:],
    "its last bit of data": lambda answer: answer[:-3] + bytes([answer[-3] ^ 1]) + answer[-2:],
}


def answers(what: Wanted, card: Ntag424Chip, change: tuple[int, Change] | None) -> list[bytes]:
    """Write a card, with one answer changed on its way; all that it has answered itself."""
    said: list[bytes] = []
    card.power_lost()
    conversation = personalize(what, numbers())
    command: bytes | None = next(conversation)
    while command is not None:
        answer = card.apdu(command)[1]
        said.append(answer)
        if change is not None and change[0] == len(said) - 1:
            answer = change[1](answer)
        try:
            command = conversation.send(answer)
        except StopIteration:
            command = None
    return said


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("mirror", list(Mirror))
def test_an_answer_of_another_length_or_content_writes_no_card_wrongly(
    name: str, mirror: Mirror
) -> None:
    """At each of the answers: it is an error, or it made no difference; and the card lives."""
    change = CHANGES[name]
    genuine = answers(wanted(mirror), Ntag424Chip(UID), None)
    refusals: list[str] = []
    for at, answer in enumerate(genuine):
        if len(answer) < 4 and name.startswith(("its", "one byte of data less")):
            continue  # there is no data in it to be changed
        if change(answer) == answer:
            continue
        card = Ntag424Chip(UID)
        try:
            answers(wanted(mirror), card, (at, change))
        except CardError as exc:
            refusals.append(str(exc))
        answers(wanted(mirror), card, None)
        assert_pays(card)
    # SELECT may be answered by as much of a card's own description as it likes.
    assert all(UID.hex() not in told.lower() and "\n" not in told for told in refusals)
    assert len(refusals) >= len(genuine) - 4 - sum(len(each) < 4 for each in genuine)


@pytest.mark.parametrize("mirror", list(Mirror))
def test_an_answer_that_never_comes_leaves_a_card_that_can_be_finished(mirror: Mirror) -> None:
    genuine = answers(wanted(mirror), Ntag424Chip(UID), None)
    for at in range(len(genuine)):
        card = Ntag424Chip(UID)
        conversation = personalize(wanted(mirror), numbers())
        command = next(conversation)
        for _ in range(at):
            command = conversation.send(card.apdu(command)[1])
        card.apdu(command)  # it has worked, and nobody heard of it
        conversation.close()
        answers(wanted(mirror), card, None)
        assert_pays(card)
