"""Attacks by those who are nobody here, or not who they say; requests that are none; weak cards.

What is not authentic or not well-formed is no verdict: nothing of it may be stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import jwt
from nacl.signing import SigningKey

from taprail_common.ids import new_id
from taprail_common.signing import Domain
from tests.attack.letters import (
    AGAIN,
    APPROVED,
    Kind,
    Letter,
    Steps,
    declined,
    refused,
)
from tests.attack.scene import Scene
from tests.attack.victims import BAKERY_TERMINAL
from tests.support.gateway_fixtures import MERCHANT, SECRET, TERMINAL

BAD_SIGNATURE: Final = refused(401, "bad_signature")
MALFORMED: Final = refused(400, "bad_request")
NO_PROOF: Final = declined("card_proof_invalid")

# --- not by who it says ---------------------------------------------------------------------------


def changed_on_the_way(s: Scene) -> Steps:
    letter = s.tap()
    for change in ({"amount": letter.fields["amount"] + 1}, {"requestId": new_id("req")}):
        body = json.dumps({**letter.fields, **change}).encode()
        yield replace(letter, body=body), BAD_SIGNATURE
    yield replace(letter, body=letter.body + b" "), BAD_SIGNATURE
    yield letter, APPROVED


def answered_request_changed_on_the_way(s: Scene) -> Steps:
    """A retry that is not authentic gets nothing, not even the answer that was given before."""
    letter = s.tap()
    yield letter, APPROVED
    yield s.signed_by(letter, SigningKey.generate()), BAD_SIGNATURE
    yield letter, AGAIN


def by_another_terminals_name(s: Scene) -> Steps:
    """In the body, in the header, and in both."""
    letter = s.tap()
    other = s.same_id(letter, terminalId=BAKERY_TERMINAL)
    yield replace(letter, sender=BAKERY_TERMINAL), BAD_SIGNATURE
    mine = s.signed_by(replace(other, sender=TERMINAL), s.shop.keys[TERMINAL])
    yield mine, MALFORMED
    yield replace(mine, sender=BAKERY_TERMINAL), BAD_SIGNATURE


def by_a_terminal_that_does_not_exist(s: Scene) -> Steps:
    yield replace(s.tap(), sender="counter-9"), refused(401, "terminal_unknown")


def signed_for_another_purpose(s: Scene) -> Steps:
    letter, key = s.tap(), s.shop.keys[TERMINAL]
    for domain in Domain:
        if domain is not Domain.PAYMENT_REQUEST:
            yield s.signed_by(letter, key, domain), BAD_SIGNATURE


def broken_signature(s: Scene) -> Steps:
    letter = s.tap()
    for text in ("", "x", letter.signature[:-4], letter.signature + "AAAA", "A" * 88):
        yield replace(letter, signature=text), BAD_SIGNATURE


# --- no request at all ----------------------------------------------------------------------------


def malformed(**changes: Any) -> Callable[[Scene], Steps]:
    """A field that is over its bound, of another kind, or that nobody knows."""

    def play(s: Scene) -> Steps:
        yield s.tap(**changes), MALFORMED

    return play


def name_that_stands_there_twice(s: Scene) -> Steps:
    """Whoever reads the first and whoever reads the last would not charge the same."""
    letter = s.tap()
    twice = letter.body[:-1] + b',"amount":1}'
    yield s.signed_by(replace(letter, body=twice), s.shop.keys[TERMINAL]), MALFORMED


# --- cards that prove nothing ---------------------------------------------------------------------


def weak(s: Scene) -> Steps:
    """A serial number is all that such a card has, and whoever knows it pays: within low limits,
    and where the operator has allowed it. Other cards cannot be had for so little."""
    number = {"profile": "uid", "uid": s.card.uid.hex()}
    letter = s.letter(number)
    yield letter, APPROVED
    yield letter, AGAIN
    yield s.anew(letter, cardUuid=s.other.uuid), NO_PROOF
    yield s.anew(letter, amount=1_000_001), declined("single_limit")
    yield s.letter({"profile": "uid", "uid": "04FFFFFFFFFFFF"}), declined("card_unknown")
    dressed = {"profile": "sun_plain", "uid": number["uid"], "readCounter": "000001"}
    yield s.letter({**dressed, "mac": f"{s.rng.getrandbits(64):016X}"}), NO_PROOF


# --- apps -----------------------------------------------------------------------------------------


def token(user: str, secret: bytes) -> str:
    """Good for ever, so that no clock plays a part."""
    return jwt.encode({"id": user, "exp": 2**40}, secret, "HS256")


def app_letter(s: Scene, user: str, **changes: Any) -> Letter:
    fields = {
        "cardUuid": s.card.uuid,
        "amount": s.amount(),
        "merchantId": MERCHANT,
        "terminalId": TERMINAL,
        "requestId": new_id("req"),
        **changes,
    }
    return Letter(json.dumps(fields).encode(), None, bearer=token(user, SECRET), card=s.card)


def app_of_somebody_else(s: Scene) -> Steps:
    mine = app_letter(s, "alice")
    yield mine, APPROVED
    yield mine, AGAIN
    yield app_letter(s, "mallory"), refused(403, "not_your_card")
    # The same request id is another request when it is another user's.
    request_id = mine.fields["requestId"]
    yield app_letter(s, "mallory", requestId=request_id), refused(403, "not_your_card")
    yield (
        app_letter(s, "alice", requestId=request_id, amount=1_001),
        refused(409, "request_id_reused"),
    )


def app_with_a_forged_token(s: Scene) -> Steps:
    letter = app_letter(s, "alice")
    forged = token("alice", b"another secret of thirty-two characters")
    yield replace(letter, bearer=forged), refused(401, "token_invalid")
    yield replace(letter, bearer=""), refused(401, "token_missing")


def app_with_a_card_that_signs(s: Scene) -> Steps:
    yield app_letter(s, "alice"), NO_PROOF


def app_that_sends_a_tap(s: Scene) -> Steps:
    letter = app_letter(s, "alice")
    proof, _ = s.shop.cards["sun"][0].tap()
    body = json.dumps({**letter.fields, "proof": proof}).encode()
    yield replace(letter, body=body), MALFORMED


_SPOILT: Final[dict[str, dict[str, Any]]] = {
    "amount of nothing": {"amount": 0},
    "amount below nothing": {"amount": -1},
    "amount beyond 2^53": {"amount": 2**53},
    "amount as a text": {"amount": "5"},
    "amount with a fraction": {"amount": 5.0},
    "amount that is true": {"amount": True},
    "unknown field": {"tip": 5},
    "counter below nothing": {"counter": -1},
    "request id of nothing": {"requestId": ""},
    "request id that is a path": {"requestId": "../x"},
    "request id with a line's end": {"requestId": "req\n"},
    "request id that is too long": {"requestId": "r" * 65},
    "time without a zone": {"acceptUntil": "2027-01-15T08:00:00"},
    "time as a number": {"acceptUntil": 1_800_000_000},
    "no proof": {"proof": None},
    "proof of another kind": {"proof": {"profile": "app"}},
}

KINDS: Final = (
    *(
        Kind(play.__name__, "sun", play)
        for play in (
            changed_on_the_way,
            answered_request_changed_on_the_way,
            by_another_terminals_name,
            by_a_terminal_that_does_not_exist,
            signed_for_another_purpose,
            broken_signature,
            name_that_stands_there_twice,
        )
    ),
    *(Kind(name, "sun", malformed(**change)) for name, change in _SPOILT.items()),
    Kind("weak", "uid", weak),
    Kind("app_of_somebody_else", "sun", app_of_somebody_else, by_app=True),
    Kind("app_with_a_forged_token", "sun", app_with_a_forged_token, by_app=True),
    Kind("app_with_a_card_that_signs", "signed", app_with_a_card_that_signs, by_app=True),
    Kind("app_that_sends_a_tap", "sun", app_that_sends_a_tap, by_app=True),
)
