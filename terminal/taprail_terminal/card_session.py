"""What is said to a card, and what its answers are worth: a conversation without a reader.

`converse` yields command APDUs and is sent the response APDUs; who carries them is not its matter.
Answers for finding out which of our cards it is and for reading a SUN proof in three exchanges;
`signing_session` goes on with a card that signs. That kind is asked for first, wherever there is
something to sign: Keycards have an NDEF application as well, other cards say no in one exchange.
Every byte from a card is hostile: lengths are checked before they are used, and a card's text is
never shown or logged.
Sources: ISO/IEC 7816-4:2013 section 5.3 (status words) and section 7.1 (SELECT), section 7.2.3
(READ BINARY); NFC Forum Type 4 Tag 1.0 section 4; NFC Forum NDEF 1.0 section 3; NFC Forum URI
Record Type Definition 1.0 section 3; NXP NT4H2421Gx section 8.2.
"""

from __future__ import annotations

import re
from typing import Final

from taprail_common.wire import PlainSunProof, SunProof, UidProof
from taprail_terminal import signing_session
from taprail_terminal.charge import Charge
from taprail_terminal.outcome import CardProof, Conversation, Garbled, NotOurs, Outcome
from taprail_terminal.signing_session import SELECT_CASH

SELECT_NDEF_APPLICATION: Final = bytes.fromhex("00A4040007D276000085010100")
# NT4H2421Gx section 8.2.2: the NDEF file of an NTAG 424 DNA. Reading the capability container, as
# other cards would need it, would cost two more exchanges and tell nothing new.
SELECT_NDEF_FILE: Final = bytes.fromhex("00A4000C02E104")
# "2PAY.SYS.DDF01", EMV Contactless Book B section 3.3.1: what every contactless bank card knows.
SELECT_BANK_DIRECTORY: Final = bytes.fromhex("00A404000E325041592E5359532E444446303100")

READ_BYTES: Final = 0x80
"""One read holds the length and the URL of a usual SUN card (about 90 bytes); the whole file of
256 bytes would take twice the time on the air."""

MAX_NDEF_BYTES: Final = 254
"""The NDEF file of an NTAG 424 DNA has 256 bytes, two of them its length."""

_NLEN_BYTES: Final = 2
_OK: Final = b"\x90\x00"
_END_OF_FILE: Final = b"\x62\x82"

# NDEF record header (NDEF 1.0 section 3.2): a single short record without an id, of a well-known
# type: MB, ME and SR set, TNF 1.
_URI_RECORD_HEADER: Final = b"\xd1\x01"
_URI_TYPE: Final = b"U"
# URI RTD 1.0 table 3, the prefixes of web addresses: none, http and https with and without www.
_WEB_PREFIXES: Final = frozenset({0x00, 0x01, 0x02, 0x03, 0x04})

# The parameters as AN12196 section 4 mirrors them, in plain hex: encrypted PICC data, or UID and
# counter, and the MAC. Matched in the raw bytes, because URI classes that quote `=` and `&` break
# the mirror.
_PARAMETERS: Final = {
    name: re.compile(rb"[?&]%b=([0-9A-Fa-f]{%d})(?=&|#|$)" % (name.encode(), digits))
    for name, digits in (("picc", 32), ("uid", 14), ("ctr", 6), ("mac", 16))
}

# ISO/IEC 14443-3 section 6.5.4: a single-size UID that begins with 08 is drawn anew each time.
_RANDOM_UID: Final = 0x08
_UID_BYTES: Final = (4, 7, 10)

BANK_CARD: Final = NotOurs("bank_card", "bank cards and phones are not taken here")
UNKNOWN_CARD: Final = NotOurs("not_our_card", "this card is not for this terminal")
_NO_STATUS: Final = Garbled("an answer without a status word")


def converse(charge: Charge | NotOurs | None = None) -> Conversation:
    """Read an ISO-DEP card: yields commands, takes responses with their status word.

    `charge` is what a signing card shall sign, or why none is taken; without one, none is. A
    response without a status word is garbled; the caller decides about silence and retries.
    """
    if charge is not None:
        selected = yield SELECT_CASH
        if len(selected) < len(_OK):
            return _NO_STATUS
        if selected.endswith(_OK):
            if isinstance(charge, NotOurs):
                return charge
            return (yield from signing_session.sign(charge, selected))
    for command in (SELECT_NDEF_APPLICATION, SELECT_NDEF_FILE):
        selected = yield command
        if len(selected) < len(_OK):
            return _NO_STATUS
        if not selected.endswith(_OK):
            return (yield from _say_why_not(charge))
    return (yield from _read_sun())


def _read_sun() -> Conversation:
    """Read the URL that an NTAG 424 DNA has just written."""
    head = _content((yield _read_binary(0, READ_BYTES)))
    if head is None or len(head) < _NLEN_BYTES:
        return Garbled("the NDEF file cannot be read")
    length = int.from_bytes(head[:_NLEN_BYTES], "big")
    if not 0 < length <= MAX_NDEF_BYTES:
        return UNKNOWN_CARD
    message = head[_NLEN_BYTES:]
    if length > len(message):
        rest = _content((yield _read_binary(len(head), length - len(message))))
        message += rest or b""
    if length > len(message):
        return Garbled("the NDEF file is shorter than it says")
    return _proof_of(message[:length])


def uid_outcome(uid: bytes) -> Outcome:
    """What a card that speaks no ISO-DEP is worth: its serial number, unless that is drawn anew."""
    if is_random_uid(uid):
        return UNKNOWN_CARD
    if len(uid) not in _UID_BYTES:
        return Garbled("a serial number of impossible length")
    return CardProof(UidProof(uid=uid.hex().upper()))


def is_random_uid(uid: bytes) -> bool:
    """Whether the card shows another serial number at each activation."""
    return len(uid) == _UID_BYTES[0] and uid[0] == _RANDOM_UID


def _say_why_not(charge: Charge | NotOurs | None) -> Conversation:
    """One or two exchanges more tell what card it is, because its holder deserves to know."""
    if (yield SELECT_BANK_DIRECTORY).endswith(_OK):
        return BANK_CARD
    if charge is None and (yield SELECT_CASH).endswith(_OK):
        return signing_session.NOT_READY
    return UNKNOWN_CARD


def _read_binary(offset: int, length: int) -> bytes:
    return b"\x00\xb0" + offset.to_bytes(2, "big") + bytes([length])


def _content(response: bytes) -> bytes | None:
    # A file that is shorter than what was asked for ends the answer with 6282 (7816-4 table 6).
    return response[:-2] if response[-2:] in {_OK, _END_OF_FILE} else None


def _proof_of(message: bytes) -> Outcome:
    url = _web_address(message)
    if url is None:
        return UNKNOWN_CARD
    found = {name: pattern.findall(url) for name, pattern in _PARAMETERS.items()}
    given = {name: values[0].decode("ascii") for name, values in found.items() if values}
    if any(len(values) > 1 for values in found.values()):
        return UNKNOWN_CARD
    match given:
        case {"picc": picc, "mac": mac} if len(given) == 2:
            return CardProof(SunProof(picc_data=picc, mac=mac))
        case {"uid": uid, "ctr": counter, "mac": mac} if len(given) == 3:
            return CardProof(PlainSunProof(uid=uid, read_counter=counter, mac=mac))
    return UNKNOWN_CARD


def _web_address(message: bytes) -> bytes | None:
    """The raw bytes of the URI record's address without its prefix; None for anything else."""
    header, length, kind = message[:2], message[2:3], message[3:4]
    if header != _URI_RECORD_HEADER or kind != _URI_TYPE or not length:
        return None
    payload = message[4 : 4 + length[0]]
    if len(payload) != length[0] or not payload or payload[0] not in _WEB_PREFIXES:
        return None
    return payload[1:]
