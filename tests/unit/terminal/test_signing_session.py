"""What is said to a signing card: checked with the simulated Keycard and with eth_account."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from taprail_common.eip3009 import domain_separator
from taprail_common.ids import payment_id
from taprail_common.wire import SignedProof
from taprail_hwsim.cards import BankCard, KeycardCash, Quirks
from taprail_terminal.card_session import (
    BANK_CARD,
    SELECT_BANK_DIRECTORY,
    SELECT_NDEF_APPLICATION,
    SELECT_NDEF_FILE,
    UNKNOWN_CARD,
    converse,
)
from taprail_terminal.charge import Charge
from taprail_terminal.outcome import CardProof, Garbled, NotOurs, Outcome
from taprail_terminal.signing_session import CANNOT_SIGN, NOT_BY_CARD, NOT_READY, SELECT_CASH
from tests.support.hwsim_fixtures import sun_card

SECRET = bytes(range(1, 33))
UID = bytes.fromhex("04112233445566")
TOKEN: Final = "0x" + "ab" * 20
PAYEE: Final = "0x" + "cd" * 20
DOMAIN: Final = {"name": "USD Coin", "version": "2", "chainId": 31337, "verifyingContract": TOKEN}
NONCE: Final = bytes.fromhex(payment_id("t1", "req_1")[2:])
CHARGE: Final = Charge(
    "req_1", domain_separator("USD Coin", "2", 31337, TOKEN), PAYEE, 2_500_000, 1_900_000_000, NONCE
)
MAX_EXCHANGES: Final = 7


def talk(card: Any, charge: Charge | None = CHARGE) -> tuple[Outcome, list[bytes]]:
    """Run a conversation against a card without its radio."""
    said: list[bytes] = []
    conversation = converse(charge)
    command = next(conversation)
    while True:
        said.append(command)
        try:
            command = conversation.send(card.apdu(command)[1])
        except StopIteration as done:
            outcome: Outcome = done.value
            return outcome, said


@dataclass
class Scripted:
    """A card that is a function of the command."""

    answer: Callable[[bytes], bytes]

    def apdu(self, command: bytes) -> tuple[str, bytes]:
        return "", self.answer(command)


def keycard(**quirks: Any) -> KeycardCash:
    return KeycardCash(UID, SECRET, Quirks(**quirks))


def typed(payer: str, charge: Charge = CHARGE) -> Any:
    """The same transfer, by eth_account's general encoder."""
    names = ("from", "to", "value", "validAfter", "validBefore", "nonce")
    types = ("address", "address", "uint256", "uint256", "uint256", "bytes32")
    values = (payer, charge.payee, charge.amount_units, 0, charge.valid_before_s, charge.nonce)
    fields = [{"name": name, "type": kind} for name, kind in zip(names, types, strict=True)]
    message = dict(zip(names, values, strict=True))
    return encode_typed_data(DOMAIN, {"TransferWithAuthorization": fields}, message)


def signed(outcome: Outcome) -> SignedProof:
    assert isinstance(outcome, CardProof)
    assert isinstance(outcome.proof, SignedProof)
    return outcome.proof


@pytest.mark.parametrize("quirks", [{}, {"high_s": True}, {"padded": True}])
def test_a_card_signs_exactly_this_transfer_in_two_exchanges(quirks: dict[str, bool]) -> None:
    card = keycard(**quirks)
    outcome, said = talk(card)
    proof = signed(outcome)
    assert len(said) == 2
    assert said[0] == SELECT_CASH
    assert said[1] == bytes.fromhex("80C0000020") + card.digests[0] + b"\0"
    assert isinstance(outcome, CardProof)
    assert outcome.request_id == "req_1"
    assert (proof.payer, proof.payee, proof.valid_before) == (card.address, PAYEE, 1_900_000_000)
    r, s = int(proof.signature[:64], 16), int(proof.signature[64:], 16)
    signers = {
        Account.recover_message(typed(card.address), vrs=(v, r, s)).lower() for v in (27, 28)
    }
    assert card.address in signers


@given(
    amount=st.integers(1, 2**53 - 1),
    until=st.integers(1, 2**40 - 1),
    request=st.text("abcdef0123456789", min_size=1, max_size=32),
)
@settings(max_examples=20)
def test_what_is_signed_is_what_eth_account_encodes(amount: int, until: int, request: str) -> None:
    nonce = bytes.fromhex(payment_id("t1", request)[2:])
    charge = replace(CHARGE, amount_units=amount, valid_before_s=until, nonce=nonce)
    card = keycard()
    proof = signed(talk(card, charge)[0])
    r, s = int(proof.signature[:64], 16), int(proof.signature[64:], 16)
    signers = {
        Account.recover_message(typed(card.address, charge), vrs=(v, r, s)).lower()
        for v in (27, 28)
    }
    assert card.address in signers


def test_a_proof_shows_nothing_of_the_card() -> None:
    outcome, _ = talk(keycard())
    assert repr(outcome) == "CardProof(signed)"
    assert NONCE.hex() not in repr(CHARGE)


@pytest.mark.parametrize(
    ("quirks", "expected"),
    [
        ({"sign_status": 0x6985}, CANNOT_SIGN),
        ({"sign_status": 0x6F00}, CANNOT_SIGN),
        ({"signs_other": True}, NOT_BY_CARD),
        ({"other_key": KeycardCash(UID, b"\7" * 32).public_key}, NOT_BY_CARD),
        ({"select_status": 0x6985}, UNKNOWN_CARD),
    ],
)
def test_a_card_that_does_not_sign_as_it_should_is_refused(
    quirks: dict[str, Any], expected: NotOurs
) -> None:
    assert talk(keycard(**quirks))[0] == expected


@pytest.mark.parametrize(
    "quirks",
    [
        {"cut_bytes": 1},
        {"cut_bytes": 80},
        {"extra": b"\x80\x01\x00"},  # two keys
        {"extra": b"\x30\x00"},  # two signatures
        {"extra": b"\x01"},
        {"extra": b"\x01\x82\x00\x00"},
        {"other_key": b"\x04" + bytes(64)},
        {"other_key": bytes(65)},
        {"other_key": b"\x02" * 33},
    ],
)
def test_a_broken_answer_is_read_again(quirks: dict[str, Any]) -> None:
    assert isinstance(talk(keycard(**quirks))[0], Garbled)


def test_what_a_newer_card_says_besides_is_passed_over() -> None:
    signed(talk(keycard(extra=b"\x8f\x02\x01\x02"))[0])


def test_a_sun_card_costs_one_exchange_more() -> None:
    outcome, said = talk(sun_card())
    assert isinstance(outcome, CardProof)
    assert outcome.request_id is None
    assert said[:3] == [SELECT_CASH, SELECT_NDEF_APPLICATION, SELECT_NDEF_FILE]
    assert len(said) == 4


def test_a_signing_card_is_put_off_while_there_is_nothing_to_sign() -> None:
    card = keycard()
    outcome, said = talk(card, None)
    assert outcome == NOT_READY
    assert said[-2:] == [SELECT_BANK_DIRECTORY, SELECT_CASH]
    assert card.digests == []


@pytest.mark.parametrize("charge", [CHARGE, None])
def test_a_bank_card_is_refused_in_its_own_words(charge: Charge | None) -> None:
    card = BankCard(UID[:4])
    outcome, said = talk(card, charge)
    assert outcome == BANK_CARD
    assert len(said) <= 3


@given(answers=st.lists(st.binary(max_size=270), max_size=MAX_EXCHANGES))
def test_no_answer_ends_a_conversation_badly(answers: list[bytes]) -> None:
    remaining = iter([*answers, *[b""] * MAX_EXCHANGES])
    outcome, _ = talk(Scripted(lambda _command: next(remaining)))
    assert not isinstance(outcome, CardProof)


@given(at=st.integers(0, 1_000), to=st.integers(0, 255), which=st.integers(0, 1))
@settings(max_examples=100)
def test_a_changed_byte_never_changes_what_is_proved(at: int, to: int, which: int) -> None:
    """Whatever arrives, what is believed is this card's signature under this transfer."""
    card, number = keycard(), itertools.count()

    def answer(command: bytes) -> bytes:
        _, said = card.apdu(command) or ("", b"")
        if next(number) != which:
            return said
        place = at % len(said)
        return said[:place] + bytes([to]) + said[place + 1 :]

    outcome, _ = talk(Scripted(answer))
    assert not isinstance(outcome, CardProof) or signed(outcome).payer == card.address
