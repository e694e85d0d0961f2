"""Attacks with cards that sign: what the card signed is changed, or it was made to sign otherwise.

The card signs payer, payee, amount, payment id and time, so here even the amount is out of a lying
terminal's reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from eth_account.messages import encode_defunct

from taprail_common.ids import new_id
from tests.attack.letters import AGAIN, APPROVED, Kind, Steps, declined, refused
from tests.attack.scene import SIGNED_FOR_S, TOKEN, Scene
from tests.attack.victims import ACCOUNTS, BAKERY, BAKERY_TERMINAL, BESIDE, SINGLE
from tests.support.eip3009 import CURVE_ORDER

NO_PROOF: Final = declined("card_proof_invalid")
UNKNOWN: Final = declined("card_unknown")
WRONG_TIME: Final = declined("clock_skew")
ATTACKER: Final = "0x" + "66" * 20
LEAST_S: Final = SIGNED_FOR_S // 2
SKEW_S: Final = 30
SLACK_S: Final = 10
"""For a slow machine, on the side where it cannot turn the answer round."""


def honest(s: Scene) -> Steps:
    letter = s.signing()
    yield letter, APPROVED
    yield letter, AGAIN
    yield s.signing(terminal=BESIDE), APPROVED


def same_signature_in_another_request(s: Scene) -> Steps:
    letter = s.signing()
    yield letter, APPROVED
    yield s.anew(letter), NO_PROOF
    yield s.same_id(letter, terminalId=BESIDE), NO_PROOF
    at_the_bakery = {"terminalId": BAKERY_TERMINAL, "merchantId": BAKERY}
    yield s.same_id(letter, **at_the_bakery), NO_PROOF
    yield s.same_id(letter, amount=1), refused(409, "request_id_reused")
    yield letter, AGAIN


def request_before_its_signature_was_used(s: Scene) -> Steps:
    """The same, when the signature is still unused."""
    letter = s.signing()
    yield s.anew(letter), NO_PROOF
    yield s.same_id(letter, terminalId=BESIDE), NO_PROOF
    yield letter, APPROVED


def in_the_request(**changes: Any) -> Callable[[Scene], Steps]:
    """Something of the request is changed after the card has signed."""

    def play(s: Scene) -> Steps:
        yield s.same_id(s.signing(), **changes), NO_PROOF

    return play


def amount(s: Scene) -> Steps:
    for more in (1, -1, s.rng.randint(1, SINGLE)):
        letter = s.signing()
        yield s.same_id(letter, amount=letter.fields["amount"] + more), NO_PROOF


def in_the_proof(**told: Any) -> Callable[[Scene], Steps]:
    """The proof says something else than the card has signed."""

    def play(s: Scene) -> Steps:
        yield s.signing(told=told), NO_PROOF

    return play


def sender(account: str) -> dict[str, Any]:
    """`from`, which is no name in Python."""
    return {"from": account}


def on_the_card(**signed: Any) -> Callable[[Scene], Steps]:
    """The card was made to sign something else than the proof says."""

    def play(s: Scene) -> Steps:
        yield s.signing(**signed), NO_PROOF

    return play


def of_another_token(**domain: Any) -> Callable[[Scene], Steps]:
    """The card was made to sign for another token or chain."""

    def play(s: Scene) -> Steps:
        yield s.signing(token={**TOKEN, **domain}), NO_PROOF

    return play


def to(payee: str) -> Callable[[Scene], Steps]:
    """Card and proof agree on a payee that is not this terminal's merchant."""

    def play(s: Scene) -> Steps:
        yield s.signing(to=payee, told={"payee": payee}), NO_PROOF

    return play


def valid_for(left_s: int) -> Callable[[Scene], Steps]:
    """Card and proof agree on a time that is too near or too far."""

    def play(s: Scene) -> Steps:
        until_s = s.now_ms // 1000 + left_s
        yield s.signing(validBefore=until_s, told={"validBefore": until_s}), WRONG_TIME

    return play


def nonce_of_another_request(s: Scene) -> Steps:
    yield s.signing(nonce=s.rng.randbytes(32)), NO_PROOF
    yield s.signing(nonce=bytes(32)), NO_PROOF


def signature_of_another_card(s: Scene) -> Steps:
    yield s.signing(by=s.other), NO_PROOF
    payer = {"payer": s.other.account}
    yield s.signing(told=payer), NO_PROOF
    yield s.signing(**sender(s.other.account), told=payer), NO_PROOF


def payer_whom_nobody_knows(s: Scene) -> Steps:
    yield s.signing(told={"payer": ATTACKER}), UNKNOWN
    custody = s.shop.cards["sun"][0].account
    yield s.signing(**sender(custody), told={"payer": custody}), UNKNOWN


def higher_s(s: Scene) -> Steps:
    letter = s.signing()
    signature = letter.fields["proof"]["signature"]
    higher = f"{CURVE_ORDER - int(signature[64:], 16):064x}"
    proof = {**letter.fields["proof"], "signature": signature[:64] + higher}
    yield s.same_id(letter, proof=proof), NO_PROOF


def spoilt_signature(s: Scene) -> Steps:
    letter = s.signing()
    bit = 1 << s.rng.randrange(512)
    changed = int(letter.fields["proof"]["signature"], 16) ^ bit
    proof = {**letter.fields["proof"], "signature": f"{changed:0128x}"}
    yield s.same_id(letter, proof=proof), NO_PROOF


def signature_under_a_text(s: Scene) -> Steps:
    """As wallets sign messages, by which an attacker may have got it."""
    letter = s.signing()
    text = encode_defunct(text=letter.fields["requestId"])
    proof = {**letter.fields["proof"], "signature": s.sign(text, s.card)}
    yield s.same_id(letter, proof=proof), NO_PROOF


def signed_card_as_a_tap(s: Scene) -> Steps:
    """Its address as a serial number: no serial number is so long."""
    account = s.card.account[2:]
    yield s.letter({"profile": "uid", "uid": account}), refused(400, "bad_request")
    sun = s.shop.cards["sun"][0]
    tap = sun.as_plain(2**24 - 1)
    yield s.letter({**tap, "mac": "0" * 16}, cardUuid=s.card.uuid), NO_PROOF


def late(s: Scene) -> Steps:
    letter = s.signing()
    passed = s.same_id(letter, acceptUntil=s.at(-s.rng.randint(1, 10**6)))
    yield passed, declined("accept_until_passed")
    # What the card signed is still good, but its request was told "not charged".
    yield letter, refused(409, "request_id_reused")
    yield s.anew(letter), NO_PROOF


def with_an_id_of_its_own(s: Scene) -> Steps:
    """Request ids that the attacker chooses, so that two requests might share a payment id."""
    letter = s.signing()
    mine = letter.fields["requestId"]
    for request_id in (mine.upper(), mine[:-1], mine + "0", new_id("req")):
        yield s.same_id(letter, requestId=request_id), NO_PROOF
    yield letter, APPROVED


KINDS: Final = tuple(
    Kind(f"signed: {name}", "signed", play)
    for name, play in {
        "honest": honest,
        "same signature in another request": same_signature_in_another_request,
        "request before its signature was used": request_before_its_signature_was_used,
        "amount": amount,
        "counter": in_the_request(counter=1),
        "another card's name": in_the_request(cardUuid="no-such-card"),
        "payee in the proof": in_the_proof(payee=ACCOUNTS[BAKERY]),
        "attacker as payee in the proof": in_the_proof(payee=ATTACKER),
        "end in the proof": in_the_proof(validBefore=2**40 - 1),
        "end of zero in the proof": in_the_proof(validBefore=0),
        "payer on the card": on_the_card(**sender(ATTACKER)),
        "payee on the card": on_the_card(to=ATTACKER),
        "amount on the card": on_the_card(value=2**53 - 1),
        "amount of nothing on the card": on_the_card(value=0),
        "beginning on the card": on_the_card(validAfter=1),
        "end on the card": on_the_card(validBefore=2**256 - 1),
        "other kind of transfer": on_the_card(typed="ReceiveWithAuthorization"),
        "nonce": nonce_of_another_request,
        "other chain": of_another_token(chainId=1),
        "other token": of_another_token(verifyingContract=ATTACKER),
        "other name": of_another_token(name="Test Dollars"),
        "other version": of_another_token(version="2"),
        "to another merchant": to(ACCOUNTS[BAKERY]),
        "to the attacker": to(ATTACKER),
        "for the past": valid_for(-1),
        "for too short": valid_for(LEAST_S - 1),
        "for too long": valid_for(SIGNED_FOR_S + SKEW_S + SLACK_S),
        "for ever": valid_for(2**39),
        "another card's signature": signature_of_another_card,
        "payer whom nobody knows": payer_whom_nobody_knows,
        "higher s": higher_s,
        "spoilt": spoilt_signature,
        "under a text": signature_under_a_text,
        "as a tap": signed_card_as_a_tap,
        "late": late,
        "request ids": with_an_id_of_its_own,
    }.items()
)
