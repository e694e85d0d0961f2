"""Attacks with SUN cards: a tap used twice, spoilt, borrowed, dressed up; a request changed.

A SUN card does not sign the amount (see THREAT_MODEL.md): a terminal that has a fresh tap may ask
for any amount within the limits. So what is tried with amounts is to change one that was answered.
"""

from __future__ import annotations

from typing import Any, Final

from tests.attack.letters import (
    AGAIN,
    APPROVED,
    Expected,
    Kind,
    Steps,
    declined,
    refused,
)
from tests.attack.scene import Scene
from tests.attack.victims import (
    BAKERY,
    BAKERY_TERMINAL,
    BESIDE,
    CLOSED,
    CLOSED_TERMINAL,
    REVOKED_TERMINAL,
    SINGLE,
    STRANGER,
    TIGHT,
)

REPLAYED: Final = declined("card_replayed")
NO_PROOF: Final = declined("card_proof_invalid")
UNKNOWN: Final = declined("card_unknown")
REUSED: Final = refused(409, "request_id_reused")
FAR_MS: Final = 45_000 + 5_000
"""Beyond a tap's life and every clock's allowed error, however slow the machine."""

# --- a tap, or a request, once more ---------------------------------------------------------------


def same_bytes(s: Scene) -> Steps:
    letter = s.tap()
    yield letter, APPROVED
    yield letter, AGAIN
    yield letter, AGAIN


def same_tap_in_another_request(s: Scene) -> Steps:
    letter = s.tap()
    yield letter, APPROVED
    yield s.anew(letter), REPLAYED
    yield s.anew(letter, amount=s.amount()), REPLAYED


def same_tap_at_another_terminal(s: Scene) -> Steps:
    letter = s.tap()
    yield letter, APPROVED
    yield s.anew(letter, terminalId=BESIDE), REPLAYED
    yield s.same_id(letter, terminalId=BESIDE), REPLAYED


def same_tap_at_another_merchants_terminal(s: Scene) -> Steps:
    letter = s.tap()
    yield letter, APPROVED
    yield s.anew(letter, terminalId=BAKERY_TERMINAL, merchantId=BAKERY), REPLAYED


def same_tap_as_plain_text(s: Scene) -> Steps:
    letter = s.tap()
    yield letter, APPROVED
    yield s.anew(letter, proof=s.card.as_plain(s.card.tapped)), REPLAYED


def plain_tap_encrypted(s: Scene) -> Steps:
    proof, counter = s.card.tap()
    plain = s.letter(s.card.as_plain(counter), counter)
    yield plain, APPROVED
    yield s.anew(plain, proof=proof), REPLAYED


def taps_in_the_wrong_order(s: Scene) -> Steps:
    first, second, third = s.tap(), s.tap(), s.tap()
    yield second, APPROVED
    yield first, REPLAYED
    yield third, APPROVED
    yield s.anew(first), REPLAYED
    yield s.anew(second), REPLAYED


def request_id_for_another_amount(s: Scene) -> Steps:
    letter = s.tap()
    yield letter, APPROVED
    yield s.same_id(letter, amount=letter.fields["amount"] + 1), REUSED
    yield s.same_id(letter, amount=letter.fields["amount"] - 1), REUSED
    yield letter, AGAIN


def request_id_for_another_tap(s: Scene) -> Steps:
    first, second = s.tap(), s.tap()
    yield first, APPROVED
    yield s.same_id(second, requestId=first.fields["requestId"]), REUSED
    yield second, APPROVED  # what was refused without a verdict has used nothing up


def request_id_for_the_same_in_other_bytes(s: Scene) -> Steps:
    letter = s.tap()
    yield letter, APPROVED
    yield s.written(letter, dict(reversed(letter.fields.items()))), REUSED
    yield s.same_id(letter, offline=False), REUSED


def declined_request_changed(s: Scene) -> Steps:
    letter = s.tap(amount=SINGLE + 1)
    yield letter, declined("single_limit")
    yield s.same_id(letter, amount=1), REUSED
    yield s.anew(letter, amount=1), REPLAYED
    yield letter, AGAIN


def late_request_made_young(s: Scene) -> Steps:
    """The tap itself is still fresh then; under its own id the request stays declined."""
    letter = s.tap(acceptUntil=s.at(-1))
    yield letter, declined("accept_until_passed")
    yield s.same_id(letter, acceptUntil=s.at(15_000)), REUSED
    yield letter, AGAIN


# --- a proof that is not what it seems ------------------------------------------------------------


def spoilt_mac(s: Scene) -> Steps:
    letter = s.tap()
    bit = 1 << s.rng.randrange(64)
    mac = int(letter.fields["proof"]["mac"], 16) ^ bit
    yield s.with_proof(letter, mac=f"{mac:016X}"), NO_PROOF
    yield letter, APPROVED  # a forgery uses up no tap


def spoilt_picc_data(s: Scene) -> Steps:
    letter = s.tap()
    picc = int(letter.fields["proof"]["piccData"], 16) ^ (1 << s.rng.randrange(128))
    yield s.with_proof(letter, piccData=f"{picc:032X}"), UNKNOWN


def mac_of_another_card(s: Scene) -> Steps:
    letter, (proof, _) = s.tap(), s.other.tap()
    yield s.with_proof(letter, mac=proof["mac"]), NO_PROOF


def mac_of_another_tap(s: Scene) -> Steps:
    first, second = s.tap(), s.tap()
    yield s.with_proof(first, mac=second.fields["proof"]["mac"]), NO_PROOF
    yield s.with_proof(second, mac=first.fields["proof"]["mac"]), NO_PROOF


def plain_mirror_of_another_card(s: Scene) -> Steps:
    letter = s.tap()
    plain = s.card.as_plain(s.card.tapped)
    yield s.anew(letter, proof={**plain, "uid": s.other.uid.hex()}), NO_PROOF


def plain_mirror_with_a_higher_counter(s: Scene) -> Steps:
    letter = s.tap()
    plain = s.card.as_plain(s.card.tapped)
    higher = min(0xFFFFFF, s.card.tapped + s.rng.randint(1, 1_000))
    yield s.anew(letter, proof={**plain, "readCounter": f"{higher:06X}"}), NO_PROOF


def counter_that_the_card_did_not_say(s: Scene) -> Steps:
    letter = s.tap()
    for claimed in (s.card.tapped + 1, s.card.tapped - 1, 2**32 - 1):
        yield s.anew(letter, counter=claimed), NO_PROOF
    yield s.anew(letter, counter=s.card.tapped), APPROVED


def card_that_is_not_the_proofs(s: Scene) -> Steps:
    letter = s.tap()
    yield s.anew(letter, cardUuid=s.other.uuid), NO_PROOF
    yield s.anew(letter, cardUuid="no-such-card"), NO_PROOF
    yield s.anew(letter, cardUuid=s.card.uuid), APPROVED


def card_of_another_issuer(s: Scene) -> Steps:
    picc, mac = STRANGER.sun_proof(s.rng.randint(1, 2**24 - 1))
    letter = s.letter({"profile": "sun", "piccData": picc, "mac": mac})
    yield letter, UNKNOWN
    yield s.anew(letter, cardUuid=s.card.uuid), UNKNOWN


def keys_that_were_replaced(s: Scene) -> Steps:
    letter = s.tap()
    yield letter, NO_PROOF
    yield s.anew(letter, proof=s.card.as_plain(s.card.tapped)), NO_PROOF


def sun_card_by_its_serial_number(s: Scene) -> Steps:
    uid = s.card.uid.hex().upper()
    yield s.letter({"profile": "uid", "uid": uid}), NO_PROOF


def sun_card_by_a_signature(s: Scene) -> Steps:
    """The account in custody named as payer, signed by a key that the attacker has."""
    signer = s.shop.cards["signed"][0]
    yield s.signing(by=signer), UNKNOWN


# --- a request that is another than the terminal may make -----------------------------------------


def changed(expected: Expected, **changes: Any) -> Any:
    """An attack that changes these fields of a fresh tap's request, and nothing else."""

    def play(s: Scene) -> Steps:
        yield s.tap(**changes), expected

    return play


def late(s: Scene) -> Steps:
    yield s.tap(acceptUntil=s.at(-s.rng.randint(1, 10**6))), declined("accept_until_passed")


def for_later(s: Scene) -> Steps:
    ahead_ms = FAR_MS + s.rng.randrange(10**9)
    yield s.tap(acceptUntil=s.at(ahead_ms)), declined("clock_skew")
    yield s.tap(tappedAt=s.at(ahead_ms)), declined("clock_skew")


def day_used_up(s: Scene) -> Steps:
    left = TIGHT - s.card.paid_units
    if left:
        yield s.tap(amount=left), APPROVED
    yield s.tap(amount=1), declined("daily_limit")


def purse_used_up(s: Scene) -> Steps:
    left = TIGHT - s.card.paid_units
    if left:
        yield s.tap(amount=left), APPROVED
    yield s.tap(amount=1), declined("insufficient_balance")


def honest(s: Scene) -> Steps:
    """Nobody is attacked: a gateway that declines everything would be safe as well."""
    yield s.tap(), APPROVED
    yield s.tap(amount=SINGLE if s.rng.random() < 0.01 else 1), APPROVED


INVALID_MERCHANT: Final = declined("invalid_merchant")

KINDS: Final = (
    *(
        Kind(play.__name__, "sun", play)
        for play in (
            honest,
            same_bytes,
            same_tap_in_another_request,
            same_tap_at_another_terminal,
            same_tap_at_another_merchants_terminal,
            same_tap_as_plain_text,
            plain_tap_encrypted,
            taps_in_the_wrong_order,
            request_id_for_another_amount,
            request_id_for_another_tap,
            request_id_for_the_same_in_other_bytes,
            declined_request_changed,
            late_request_made_young,
            spoilt_mac,
            spoilt_picc_data,
            mac_of_another_card,
            mac_of_another_tap,
            plain_mirror_of_another_card,
            plain_mirror_with_a_higher_counter,
            counter_that_the_card_did_not_say,
            card_that_is_not_the_proofs,
            card_of_another_issuer,
            sun_card_by_its_serial_number,
            sun_card_by_a_signature,
            late,
            for_later,
        )
    ),
    Kind("keys_that_were_replaced", "replaced", keys_that_were_replaced),
    Kind("day_used_up", "tight", day_used_up),
    Kind("purse_used_up", "poor", purse_used_up),
    Kind("frozen", "frozen", changed(declined("card_frozen"))),
    Kind("expired", "expired", changed(declined("card_expired"))),
    Kind("outlived", "outlived", changed(declined("card_expired"))),
    *(
        Kind(name, "sun", changed(expected, **changes))
        for name, expected, changes in (
            ("for_another_merchant", INVALID_MERCHANT, {"merchantId": BAKERY}),
            ("for_no_merchant", INVALID_MERCHANT, {"merchantId": "nobody"}),
            (
                "at_a_closed_merchant",
                INVALID_MERCHANT,
                {"merchantId": CLOSED, "terminalId": CLOSED_TERMINAL},
            ),
            (
                "at_a_revoked_terminal",
                declined("terminal_revoked"),
                {"terminalId": REVOKED_TERMINAL},
            ),
            ("in_another_currency", declined("currency_unsupported"), {"currency": "EURX"}),
            ("over_the_limit", declined("single_limit"), {"amount": SINGLE + 1}),
            ("over_all_limits", declined("single_limit"), {"amount": 2**53 - 1}),
        )
    ),
)
