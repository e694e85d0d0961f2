"""What is said to a card and what its answers are worth, without a reader."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taprail_common.wire import PlainSunProof, SunProof
from taprail_hwsim.cards import Ntag424
from taprail_hwsim.cards.type4 import uri_ndef_file
from taprail_terminal.card_session import (
    BANK_CARD,
    MAX_NDEF_BYTES,
    READ_BYTES,
    SELECT_BANK_DIRECTORY,
    SELECT_NDEF_APPLICATION,
    SELECT_NDEF_FILE,
    UNKNOWN_CARD,
    converse,
    uid_outcome,
)
from taprail_terminal.outcome import CardProof, Garbled, NotOurs, Outcome

OK = b"\x90\x00"
NOT_FOUND = b"\x6a\x82"
PICC, MAC = "EF963FF7828658A599F3041510671E88", "94EED9EE65337086"  # NXP AN12196 table 4
MAX_EXCHANGES = 5

Answer = Callable[[bytes], bytes]


def talk(answer: Answer) -> tuple[Outcome, list[bytes]]:
    """Run a conversation against a card that is a function."""
    said: list[bytes] = []
    conversation = converse()
    command = next(conversation)
    while True:
        said.append(command)
        try:
            command = conversation.send(answer(command))
        except StopIteration as done:
            outcome: Outcome = done.value
            return outcome, said


def card_with(file: bytes) -> Answer:
    """A card that holds an NDEF file and answers reads of it."""

    def answer(command: bytes) -> bytes:
        if command[1] == 0xA4:
            return OK
        offset, length = int.from_bytes(command[2:4], "big"), command[4]
        return file[offset : offset + length] + OK

    return answer


def message(record: bytes) -> bytes:
    return len(record).to_bytes(2, "big") + record


def url_card(url: str) -> Answer:
    return card_with(uri_ndef_file(url.encode()))


def test_a_published_proof_is_read_in_three_exchanges() -> None:
    outcome, said = talk(url_card(f"https://choose.url.com/ntag424?picc={PICC}&mac={MAC}"))
    assert outcome == CardProof(SunProof(picc_data=PICC, mac=MAC))
    assert said == [
        SELECT_NDEF_APPLICATION,
        SELECT_NDEF_FILE,
        b"\x00\xb0\x00\x00" + bytes([READ_BYTES]),
    ]


def test_a_plain_mirror_is_read_as_it_stands() -> None:
    """The published tap of AN12196, mirrored in plain text: the same UID, counter and MAC."""
    outcome, said = talk(url_card(f"https://a.b/?uid=04DE5F1EACC040&ctr=00003D&mac={MAC}"))
    assert outcome == CardProof(PlainSunProof(uid="04DE5F1EACC040", read_counter="00003D", mac=MAC))
    assert "04DE5F" not in repr(outcome)
    assert len(said) == 3
    card = Ntag424(bytes(range(1, 8)), bytes(16), bytes(16), plain=True)
    outcome, _ = talk(lambda command: card.apdu(command)[1])
    mac = card.sun_proof(1)[1]
    expected = PlainSunProof(uid="01020304050607", read_counter="000001", mac=mac)
    assert outcome == CardProof(expected)


def test_a_simulated_card_is_read() -> None:
    card = Ntag424(bytes(range(1, 8)), bytes(16), bytes(16))
    outcome, _ = talk(lambda command: card.apdu(command)[1])
    picc, mac = card.sun_proof(card.counter)
    assert outcome == CardProof(SunProof(picc_data=picc, mac=mac))


def test_a_long_url_takes_one_more_read() -> None:
    url = f"https://tap.example/{'a' * 120}?picc={PICC}&mac={MAC}"
    outcome, said = talk(url_card(url))
    assert outcome == CardProof(SunProof(picc_data=PICC, mac=MAC))
    assert len(said) == 4


def test_a_proof_shows_nothing_of_the_card() -> None:
    outcome, _ = talk(url_card(f"https://a.b/?picc={PICC}&mac={MAC}"))
    assert PICC not in repr(outcome)
    assert MAC not in repr(outcome)


@pytest.mark.parametrize(
    "query",
    [
        f"picc={PICC}",
        f"mac={MAC}",
        f"picc={PICC[:-1]}&mac={MAC}",
        f"picc={PICC}0&mac={MAC}",
        f"picc={PICC}&mac={MAC[:-2]}",
        f"picc={PICC}&mac={MAC}&mac={MAC}",
        f"picc={PICC}&picc={PICC}&mac={MAC}",
        f"xpicc={PICC}&mac={MAC}",
        f"picc={PICC[:-1]}G&mac={MAC}",
        f"picc%3D{PICC}%26mac%3D{MAC}",
        f"uid=04DE5F1EACC040&mac={MAC}",
        f"ctr=00003D&mac={MAC}",
        "uid=04DE5F1EACC040&ctr=00003D",
        f"uid=04DE5F1EACC04&ctr=00003D&mac={MAC}",
        f"uid=04DE5F1EACC040&ctr=0003D&mac={MAC}",
        f"uid=04DE5F1EACC040&ctr=00003D&ctr=00003D&mac={MAC}",
        f"picc={PICC}&uid=04DE5F1EACC040&ctr=00003D&mac={MAC}",
        f"picc={PICC}&uid=04DE5F1EACC040&mac={MAC}",
    ],
)
def test_a_url_without_exactly_one_proof_is_not_ours(query: str) -> None:
    assert talk(url_card(f"https://a.b/?{query}"))[0] == UNKNOWN_CARD


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xd1",
        b"\xd1\x01\x05U",  # a payload that is not there
        b"\xd1\x01\x00U",  # no payload
        b"\xd1\x01\x02T\x04a",  # a text record
        b"\xd1\x01\x02U\x05a",  # a telephone number
        b"\xc1\x01\x00\x00\x00\x02U\x04a",  # a long record
        b"\x91\x01\x02U\x04a",  # the first of several
    ],
)
def test_other_ndef_messages_are_not_ours(record: bytes) -> None:
    assert talk(card_with(message(record)))[0] == UNKNOWN_CARD


@pytest.mark.parametrize("length", [0, MAX_NDEF_BYTES + 1, 0xFFFF])
def test_an_impossible_length_is_refused_before_it_is_used(length: int) -> None:
    outcome, said = talk(card_with(length.to_bytes(2, "big") + bytes(300)))
    assert outcome == UNKNOWN_CARD
    assert len(said) == 3


def test_a_file_that_is_shorter_than_it_says_is_garbled() -> None:
    outcome, _ = talk(card_with(b"\x00\xc8" + bytes(10)))
    assert isinstance(outcome, Garbled)


def test_an_answer_without_a_status_word_is_garbled() -> None:
    assert isinstance(talk(lambda _command: b"")[0], Garbled)


def test_a_bank_card_is_told_apart() -> None:
    def answer(command: bytes) -> bytes:
        return OK if command == SELECT_BANK_DIRECTORY else NOT_FOUND

    assert talk(answer)[0] == BANK_CARD
    assert talk(lambda _command: NOT_FOUND)[0] == UNKNOWN_CARD


@settings(max_examples=400)
@given(st.lists(st.binary(max_size=300), min_size=MAX_EXCHANGES, max_size=MAX_EXCHANGES))
def test_hostile_bytes_end_in_an_outcome_after_few_exchanges(answers: list[bytes]) -> None:
    outcome, said = talk(lambda _command: answers.pop(0))
    assert isinstance(outcome, CardProof | NotOurs | Garbled)
    assert len(said) <= MAX_EXCHANGES


@settings(max_examples=400)
@given(st.binary(max_size=300))
def test_hostile_files_end_in_an_outcome(file: bytes) -> None:
    assert isinstance(talk(card_with(file))[0], CardProof | NotOurs | Garbled)


@settings(max_examples=200)
@given(st.binary(max_size=240))
def test_hostile_urls_give_only_well_formed_proofs(url: bytes) -> None:
    record = b"\xd1\x01" + bytes([len(url) + 1]) + b"U\x04" + url
    outcome, _ = talk(card_with(message(record)))
    assert outcome == UNKNOWN_CARD or isinstance(outcome, CardProof)


def test_a_serial_number_that_is_drawn_anew_identifies_nobody() -> None:
    assert uid_outcome(bytes.fromhex("08A1B2C3")) == UNKNOWN_CARD
    assert isinstance(uid_outcome(bytes.fromhex("04A1B2C3")), CardProof)


@settings(max_examples=100)
@given(st.binary(max_size=12))
def test_hostile_serial_numbers(uid: bytes) -> None:
    assert isinstance(uid_outcome(uid), CardProof | NotOurs | Garbled)
