"""Card proofs: NXP's published tap, genuine taps of simulated cards, and every way to spoil one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from eth_account import Account

from taprail_common.eip3009 import TransferAuthorization, domain_separator
from taprail_common.ids import payment_id
from taprail_common.secp256k1 import ORDER
from taprail_common.wire import (
    PlainSunProof,
    SignedProof,
    SunProof,
    TerminalPayment,
    UidProof,
)
from taprail_gateway.authorize import Profile
from taprail_gateway.proofs import IssuerKeys, ProofReader
from taprail_gateway.reasons import Reason
from taprail_hwsim.cards.ntag424 import Ntag424

UID = bytes.fromhex("04AABBCCDDEE01")
OLD, NEW = IssuerKeys(b"M" * 16, b"R" * 16), IssuerKeys(b"m" * 16, b"r" * 16)
SEPARATOR = domain_separator("Test Dollar", "1", 31337, "0x" + "70" * 20)
SIGNER = Account.from_key(b"\7" * 32)
PAYEE = "0x" + "ee" * 20
UNTIL_S = 1_900_000_000
TAPPED_AT = datetime(2027, 1, 15, 8, tzinfo=UTC)


def digest(uid: bytes) -> str:
    return f"digest of {uid.hex()}"


def card(keys: IssuerKeys, uid: bytes = UID) -> Ntag424:
    return Ntag424.personalised(uid, keys.sun_master_key, sdm_meta_read_key=keys.meta_read_key)


def sun_proof(keys: IssuerKeys, counter: int) -> SunProof:
    picc, mac = card(keys).sun_proof(counter)
    return SunProof(picc_data=picc, mac=mac)


def payment(
    proof: SunProof | PlainSunProof | UidProof | SignedProof, **changes: Any
) -> TerminalPayment:
    return TerminalPayment(
        **{
            "request_id": "req-1",
            "terminal_id": "counter-1",
            "merchant_id": "kiosk",
            "amount": 100,
            "currency": "TUSD",
            "tapped_at": TAPPED_AT,
            "accept_until": TAPPED_AT + timedelta(seconds=15),
            "proof": proof,
            **changes,
        }
    )


@pytest.mark.parametrize(("version", "keys"), [(1, OLD), (2, NEW)])
def test_a_genuine_tap_names_its_card_and_counter(version: int, keys: IssuerKeys) -> None:
    reader = ProofReader({1: OLD, 2: NEW}, digest, SEPARATOR)
    evidence = reader.evidence(payment(sun_proof(keys, 42)))
    assert evidence.problem is None
    assert evidence.uid_digest == digest(UID)
    assert (evidence.profile, evidence.counter, evidence.key_version) == ("sun", 42, version)


def test_the_published_tap_is_decrypted_and_its_mac_is_not_by_a_card_of_ours() -> None:
    # AN12196 section 3.4.2 and 3.4.4.2.1: all-zero keys, UID 04DE5F1EACC040, counter 3D0000. Its
    # MAC is under the undiversified key, which no card of this issuer has.
    published = SunProof(picc_data="EF963FF7828658A599F3041510671E88", mac="94EED9EE65337086")
    evidence = ProofReader({1: IssuerKeys(bytes(16), bytes(16))}, digest, SEPARATOR).evidence(
        payment(published)
    )
    assert evidence.uid_digest == digest(bytes.fromhex("04DE5F1EACC040"))
    assert evidence.problem is Reason.CARD_PROOF_INVALID
    assert evidence.counter is None


@pytest.mark.parametrize("flipped_bit", range(64))
def test_no_bit_of_the_mac_may_differ(flipped_bit: int) -> None:
    good = sun_proof(OLD, 5)
    spoilt = int(good.mac, 16) ^ (1 << flipped_bit)
    proof = SunProof(picc_data=good.picc_data, mac=f"{spoilt:016X}")
    evidence = ProofReader({1: OLD}, digest, SEPARATOR).evidence(payment(proof))
    assert evidence.problem is Reason.CARD_PROOF_INVALID
    assert evidence.counter is None


def test_the_mac_of_one_tap_does_not_fit_another() -> None:
    mixed = SunProof(picc_data=sun_proof(OLD, 6).picc_data, mac=sun_proof(OLD, 5).mac)
    evidence = ProofReader({1: OLD}, digest, SEPARATOR).evidence(payment(mixed))
    assert evidence.problem is Reason.CARD_PROOF_INVALID


def test_a_card_of_another_issuer_is_unknown() -> None:
    evidence = ProofReader({1: OLD}, digest, SEPARATOR).evidence(payment(sun_proof(NEW, 5)))
    assert evidence.problem is Reason.CARD_UNKNOWN
    assert evidence.uid_digest is None


@pytest.mark.parametrize(("claimed", "problem"), [(5, None), (6, Reason.CARD_PROOF_INVALID)])
def test_the_counter_that_the_terminal_read_must_be_the_encrypted_one(
    claimed: int, problem: Reason | None
) -> None:
    wanted = payment(sun_proof(OLD, 5), counter=claimed)
    assert ProofReader({1: OLD}, digest, SEPARATOR).evidence(wanted).problem is problem


def test_a_serial_number_is_only_looked_up() -> None:
    evidence = ProofReader({1: OLD}, digest, SEPARATOR).evidence(payment(UidProof(uid="04AABBCC")))
    assert evidence.profile is Profile.UID
    assert evidence.uid_digest == digest(bytes.fromhex("04AABBCC"))
    assert evidence.counter is None


def test_keys_are_not_shown() -> None:
    assert "M" * 4 not in repr(OLD)
    assert "R" * 4 not in repr(OLD)


def signed_proof(separator: bytes = SEPARATOR, **changes: Any) -> SignedProof:
    """What a card signs for `payment`, by eth_account; `changes` are of what it is made to sign."""
    transfer = {
        "payer": SIGNER.address.lower(),
        "payee": PAYEE,
        "amount_units": 100,
        "valid_after_s": 0,
        "valid_before_s": UNTIL_S,
        "nonce": bytes.fromhex(payment_id("counter-1", "req-1")[2:]),
        **changes,
    }
    signed = SIGNER.unsafe_sign_hash(TransferAuthorization(**transfer).digest(separator))
    return SignedProof(
        payer=SIGNER.address.lower(),
        payee=PAYEE,
        valid_before=UNTIL_S,
        signature=f"{signed.r:064x}{signed.s:064x}",
    )


READER = ProofReader({1: OLD}, digest, SEPARATOR)


def test_a_card_that_signed_this_payment_is_named_by_its_address() -> None:
    evidence = READER.evidence(payment(signed_proof()))
    assert evidence.problem is None
    assert (evidence.profile, evidence.counter) == (Profile.SIGNED, None)
    assert evidence.uid_digest == digest(bytes.fromhex(SIGNER.address[2:]))
    authorization = evidence.authorization
    assert authorization is not None
    assert (authorization.payer, authorization.payee) == (SIGNER.address.lower(), PAYEE)
    assert authorization.valid_before_s == UNTIL_S
    transfer = TransferAuthorization(
        SIGNER.address,
        PAYEE,
        100,
        0,
        UNTIL_S,
        bytes.fromhex(payment_id("counter-1", "req-1")[2:]),
    )
    # The signature with the recovery id that was found is the one that eth_account makes.
    assert authorization.signature == SIGNER.unsafe_sign_hash(transfer.digest(SEPARATOR)).signature
    assert authorization.signature.hex() not in repr(evidence)


@pytest.mark.parametrize(
    "changes",
    [
        {"payee": "0x" + "ef" * 20},
        {"payer": "0x" + "ef" * 20},
        {"amount_units": 101},
        {"amount_units": 99},
        {"valid_after_s": 1},
        {"valid_before_s": UNTIL_S + 1},
        {"nonce": bytes.fromhex(payment_id("counter-1", "req-2")[2:])},
        {"nonce": bytes.fromhex(payment_id("counter-2", "req-1")[2:])},
        {"separator": domain_separator("Test Dollar", "1", 1, "0x" + "70" * 20)},
    ],
)
def test_a_signature_under_another_transfer_does_not_hold(changes: dict[str, Any]) -> None:
    evidence = READER.evidence(payment(signed_proof(**changes)))
    assert evidence.problem is Reason.CARD_PROOF_INVALID
    assert evidence.authorization is None


@pytest.mark.parametrize(
    "changes",
    [
        {"payer": "0x" + "ef" * 20},
        {"payee": "0x" + "ef" * 20},
        {"valid_before": UNTIL_S - 1},
        {"signature": "0" * 128},
        {"signature": "f" * 128},
        {"signature": f"{1:064x}{ORDER // 2 + 1:064x}"},
        {"signature": f"{5:064x}{1:064x}"},  # no point has this r
    ],
)
def test_a_proof_that_says_otherwise_than_it_signed_does_not_hold(changes: dict[str, Any]) -> None:
    proof = signed_proof().model_copy(update=changes)
    assert READER.evidence(payment(proof)).problem is Reason.CARD_PROOF_INVALID


def test_the_higher_s_is_refused_since_no_token_takes_it() -> None:
    good = signed_proof()
    higher = ORDER - int(good.signature[64:], 16)
    proof = good.model_copy(update={"signature": f"{good.signature[:64]}{higher:064x}"})
    assert READER.evidence(payment(proof)).problem is Reason.CARD_PROOF_INVALID


@pytest.mark.parametrize(
    "changes", [{"amount": 101}, {"request_id": "req-2"}, {"terminal_id": "counter-2"}]
)
def test_a_request_that_asks_for_something_else_does_not_hold(changes: dict[str, Any]) -> None:
    evidence = READER.evidence(payment(signed_proof(), **changes))
    assert evidence.problem is Reason.CARD_PROOF_INVALID


def test_a_signing_card_has_no_counter() -> None:
    evidence = READER.evidence(payment(signed_proof(), counter=1))
    assert evidence.problem is Reason.CARD_PROOF_INVALID


def plain_proof(keys: IssuerKeys, counter: int, **changes: Any) -> PlainSunProof:
    mac = card(keys).sun_proof(counter)[1]
    told = {"uid": UID.hex(), "read_counter": f"{counter:06X}", "mac": mac}
    return PlainSunProof(**{**told, **changes})


@pytest.mark.parametrize(("version", "keys"), [(1, OLD), (2, NEW)])
@pytest.mark.parametrize("counter", [1, 0x00FF01, 0xFFFFFF])
def test_a_plain_mirror_proves_as_much_as_an_encrypted_one(
    version: int, keys: IssuerKeys, counter: int
) -> None:
    reader = ProofReader({1: OLD, 2: NEW}, digest, SEPARATOR)
    evidence = reader.evidence(payment(plain_proof(keys, counter)))
    assert evidence == reader.evidence(payment(sun_proof(keys, counter)))
    assert (evidence.problem, evidence.counter, evidence.key_version) == (None, counter, version)


@pytest.mark.parametrize(
    "changes",
    [{"uid": "04AABBCCDDEE02"}, {"read_counter": "00002B"}, {"mac": "0" * 16}],
)
def test_a_plain_mirror_with_anything_changed_does_not_hold(changes: dict[str, str]) -> None:
    evidence = READER.evidence(payment(plain_proof(OLD, 42, **changes)))
    assert evidence.problem is Reason.CARD_PROOF_INVALID
    assert evidence.counter is None
