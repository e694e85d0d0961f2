"""Every field of what a card answers at the counter: at its length, one under, and one over."""

from __future__ import annotations

import pytest

from taprail_common.wire import PlainSunProof, SunProof
from taprail_hwsim.cards import KeycardCash, Quirks
from taprail_hwsim.cards.type4 import uri_ndef_file
from taprail_terminal.card_session import MAX_NDEF_BYTES, UNKNOWN_CARD, uid_outcome
from taprail_terminal.outcome import CardProof, Garbled, Outcome
from tests.unit.terminal.test_card_session import MAC, PICC, card_with, message, talk, url_card
from tests.unit.terminal.test_signing_session import SECRET, UID, Scripted
from tests.unit.terminal.test_signing_session import talk as sign

FIELDS = {"picc": PICC, "uid": "04DE5F1EACC040", "ctr": "00003D", "mac": MAC}


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("off_by", [-2, -1, 0, 1, 2])
def test_each_field_of_a_sun_address_has_its_length_and_no_other(name: str, off_by: int) -> None:
    fields = {each: FIELDS[each] for each in ("picc", "mac")}
    if name in {"uid", "ctr"}:
        fields = {each: FIELDS[each] for each in ("uid", "ctr", "mac")}
    fields[name] = fields[name][:off_by] if off_by < 0 else fields[name] + "0" * off_by
    query = "&".join(f"{each}={value}" for each, value in fields.items())
    outcome, _ = talk(url_card(f"https://a.b/?{query}"))
    if off_by:
        assert outcome == UNKNOWN_CARD
    else:
        assert isinstance(outcome, CardProof)
        kind = PlainSunProof if "uid" in fields else SunProof
        assert isinstance(outcome.proof, kind)


def url_of(length: int) -> bytes:
    """A record whose NDEF message has this length."""
    tail = f"?picc={PICC}&mac={MAC}"
    head = "https://a.b/"
    bare = int.from_bytes(uri_ndef_file((head + tail).encode())[:2], "big")
    return uri_ndef_file((head + "x" * (length - bare) + tail).encode())


@pytest.mark.parametrize("length", [126, 127, MAX_NDEF_BYTES - 1, MAX_NDEF_BYTES])
def test_a_file_may_be_as_long_as_the_chips(length: int) -> None:
    """126 is what one read holds."""
    outcome, said = talk(card_with(url_of(length)))
    assert isinstance(outcome, CardProof)
    assert len(said) == (3 if length <= 126 else 4)


def test_a_file_may_not_be_longer() -> None:
    file = (MAX_NDEF_BYTES + 1).to_bytes(2, "big") + url_of(MAX_NDEF_BYTES)[2:] + b"x"
    assert talk(card_with(file))[0] == UNKNOWN_CARD


@pytest.mark.parametrize(("off_by", "expected"), [(-1, UNKNOWN_CARD), (1, UNKNOWN_CARD)])
def test_a_records_length_is_that_of_its_payload(off_by: int, expected: Outcome) -> None:
    file = uri_ndef_file(f"https://a.b/?picc={PICC}&mac={MAC}".encode())
    record = bytearray(file[2 : 2 + int.from_bytes(file[:2], "big")])
    record[2] += off_by
    assert talk(card_with(message(bytes(record))))[0] == expected


@pytest.mark.parametrize("length", range(12))
def test_a_serial_number_has_one_of_three_lengths(length: int) -> None:
    outcome = uid_outcome(bytes([4] * length))
    assert isinstance(outcome, CardProof if length in {4, 7, 10} else Garbled)


def signed(change: int, which: int, *, status: bytes | None = None) -> Outcome:
    """A Keycard whose answer to one command is longer or shorter by some bytes of data."""
    card, number = KeycardCash(UID, SECRET, Quirks()), iter(range(9))

    def answer(command: bytes) -> bytes:
        said = (card.apdu(command) or ("", b""))[1]
        if next(number) != which:
            return said
        data, word = said[:-2], status or said[-2:]
        return (data[:change] if change < 0 else data + b"\xff" * change) + word

    return sign(Scripted(answer))[0]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("change", [-80, -2, -1, 1, 2, 160])
def test_a_signing_cards_answer_is_whole_or_nothing(which: int, change: int) -> None:
    assert isinstance(signed(change, which), Garbled)


@pytest.mark.parametrize("which", [0, 1])
def test_at_its_length_it_is_taken(which: int) -> None:
    assert isinstance(signed(0, which), CardProof)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "status", [b"\x6a\x82", b"\x69\x85", b"\x91\x00", b"\x61\x10", b"\x90\x01"]
)
def test_another_status_is_no_signature(which: int, status: bytes) -> None:
    assert not isinstance(signed(0, which, status=status), CardProof)
