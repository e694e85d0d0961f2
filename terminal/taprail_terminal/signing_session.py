"""What is said to a signing card: the Keycard Cash applet, in two exchanges.

SELECT gives the card's public key and with it the payer; then the digest of the whole transfer is
signed. The card cannot know what it signs, so the signature is checked here, by the key of the same
session, before anybody is told that the card was read. What a card answers is hostile: every length
is checked, and only what is looked for is looked at.
Sources: https://keycard.tech/docs/sdk/cash and CashApplet.java of status-im/status-keycard for the
commands and tags; ITU-T X.690 section 8.1.3 for lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from taprail_common.errors import InputError, SignatureError
from taprail_common.secp256k1 import CardKey, CardSignature
from taprail_common.wire import SignedProof
from taprail_terminal.charge import Charge
from taprail_terminal.offline import OfflineNo, refusal
from taprail_terminal.outcome import CardProof, Conversation, Garbled, NotOurs

SELECT_CASH: Final = bytes.fromhex("00A4040009A0000008040001030100")
_SIGN: Final = bytes.fromhex("80C0000020")
_WHOLE_ANSWER: Final = b"\x00"  # Le: as long as it is

_OK: Final = b"\x90\x00"
_INFO, _PUBLIC_KEY = 0xA4, 0x80
_SIGNED, _DER = 0xA0, 0x30
_LONG_LENGTH: Final = 0x81  # one more byte has the length; the applet writes it for short ones too

CANNOT_SIGN: Final = NotOurs("card_cannot_sign", "this card did not sign the payment")
NOT_BY_CARD: Final = NotOurs("card_signature_wrong", "this card is faulty")
NOT_READY: Final = NotOurs("signing_not_ready", "cards of this kind cannot be taken right now")


def sign(charge: Charge, selected: bytes) -> Conversation:
    """Go on with a card whose Cash applet has answered SELECT with this (status word included)."""
    try:
        key = CardKey(_only(_PUBLIC_KEY, _only(_INFO, selected.removesuffix(_OK))))
    except InputError as exc:
        return Garbled(f"the card's key cannot be read ({exc})")
    if charge.offline is not None and charge.offline.names(key.address):
        return refusal(OfflineNo.FROZEN)  # before it has signed anything
    authorization = charge.by(key.address)
    digest = authorization.digest(charge.domain_separator)
    answer = yield _SIGN + digest + _WHOLE_ANSWER
    if len(answer) < len(_OK):
        return Garbled("an answer without a status word")
    if not answer.endswith(_OK):
        return CANNOT_SIGN
    try:
        template = _only(_SIGNED, answer.removesuffix(_OK))
        signature = CardSignature.from_der(_der_in(template))
        if _only(_PUBLIC_KEY, template) != key.point:
            return NOT_BY_CARD
        key.check(digest, signature)
    except InputError as exc:
        return Garbled(f"the card's signature cannot be read ({exc})")
    except SignatureError:
        return NOT_BY_CARD
    proof = SignedProof(
        payer=key.address,
        payee=charge.payee,
        valid_before=charge.valid_before_s,
        signature=signature.compact().hex(),
    )
    return CardProof(proof, charge.request_id, charge.offline)


def _only(tag: int, data: bytes) -> bytes:
    """The value of the one object with this tag."""
    found = [value for each, value in _objects(data) if each == tag]
    if len(found) != 1:
        raise InputError("answer", f"holds {len(found)} objects with tag {tag:02X}")
    return found[0]


def _der_in(template: bytes) -> bytes:
    """The signature with its own head, which the reader of DER wants to see."""
    value = _only(_DER, template)
    return bytes([_DER, len(value)]) + value


def _objects(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and value of each object, one after the other."""
    while data:
        at = 3 if data[1:2] == bytes([_LONG_LENGTH]) else 2
        if len(data) < at or (at == 2 and data[1] >= _LONG_LENGTH - 1):
            raise InputError("answer", "ends within a length, or has one that nobody writes")
        length = data[at - 1]
        if len(data) < at + length:
            raise InputError("answer", "ends within an object")
        yield data[0], data[at : at + length]
        data = data[at + length :]
