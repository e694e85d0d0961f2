"""Secure Unique NFC (SUN) of the NTAG 424 DNA: what a fresh tap must look like.

A card writes UID and tap counter (PICCData), encrypted or as they are, and a MAC over them into its
NDEF URL at every tap.
Sources: NXP AN12196 "NTAG 424 DNA features and hints" sections 3.3 and 3.4; NXP AN10922 "Symmetric
key diversifications" section 2.2 (AES-128). The simulator's cards do their own card maths with
another library, so a mistake here cannot hide there.

The proof says that this card was tapped just now, never how much it shall pay.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from taprail_common.errors import InputError

PICC_DATA_BYTES: Final = 16
_KEYS_CACHED: Final = 16
"""Keys of issuers that are kept ready; there is one for each of their versions."""
MAC_BYTES: Final = 8
UID_BYTES: Final = 7

# PICCDataTag (AN12196 table 2): bit 7 UID mirrored, bit 6 counter mirrored, low nibble UID length.
_PICC_DATA_TAG: Final = 0xC7
# SV2, the session vector of the MAC key (AN12196 section 3.3): label 3CC3, counter 1, length 128.
_SV2_PREFIX: Final = bytes.fromhex("3CC300010080")
# AN10922 section 2.2.1: the constant that marks a diversified AES-128 key.
_DIVERSIFY_AES128: Final = b"\x01"
# M = UID || this: an application id and a system identifier, which keep keys of other systems that
# share a master key apart. Part of a personalised card for life: it never changes.
_DIVERSIFY_SYSTEM: Final = bytes.fromhex("D27600") + b"TapRail"


@dataclass(frozen=True, slots=True)
class PiccData:
    """What the card says of itself. The UID is never logged."""

    uid: bytes
    counter: int

    def __repr__(self) -> str:
        return f"PiccData(uid=…, counter={self.counter})"


def decrypt_picc_data(meta_read_key: bytes, encrypted: bytes) -> PiccData:
    """Read UID and tap counter out of the mirrored PICCData (AN12196 section 3.4.2).

    Raises InputError when it is not what an issuer's card would have written.
    """
    if len(encrypted) != PICC_DATA_BYTES:
        raise InputError("proof.piccData", f"must be {PICC_DATA_BYTES} bytes")
    plain = _decryptor(meta_read_key).update(encrypted)
    if plain[0] != _PICC_DATA_TAG:
        raise InputError("proof.piccData", "is not by a card of this issuer", code="card_unknown")
    return PiccData(plain[1 : 1 + UID_BYTES], int.from_bytes(plain[8:11], "little"))


def plain_picc_data(uid: str, counter: str) -> PiccData:
    """UID and tap counter that a card mirrored in plain text: hex, the counter's highest digits
    first (NT4H2421Gx section 9.3.3). They are the card's only if its MAC says so."""
    return PiccData(bytes.fromhex(uid), int(counter, 16))


@lru_cache(_KEYS_CACHED)
def _decryptor(key: bytes) -> CipherContext:
    """CBC of one block with an IV of zeros (AN12196 section 3.4.2) is that block by itself, so it
    can go on for ever: a context of its own for each tap costs as much as all the rest of it."""
    return Cipher(algorithms.AES(key), modes.ECB()).decryptor()  # noqa: S305 - one block only


def diversify(master_key: bytes, uid: bytes, number: int | None = None) -> bytes:
    """The card's own AES-128 key from the issuer's master key (AN10922 section 2.2): the one that
    its MACs are made by, or, with a number, the key of that number that nothing is read by."""
    role = b"" if number is None else bytes([number])
    # 18 or 19 bytes: AN10922 pads the input to 32 bytes exactly as CMAC pads its last block.
    return _cmac(master_key, _DIVERSIFY_AES128 + uid + _DIVERSIFY_SYSTEM + role)


def sun_mac(file_read_key: bytes, picc: PiccData, mac_input: bytes = b"") -> bytes:
    """The 8-byte SDMMAC that the card must have written (AN12196 section 3.4.4)."""
    session_key = _cmac(file_read_key, _SV2_PREFIX + picc.uid + picc.counter.to_bytes(3, "little"))
    # Truncation takes every second byte, beginning with the second (NT4H2421Gx section 9.1.3).
    return _cmac(session_key, mac_input)[1::2]


def mac_matches(file_read_key: bytes, picc: PiccData, mac: bytes) -> bool:
    """Whether the MAC proves a tap of this card, compared in constant time."""
    return hmac.compare_digest(sun_mac(file_read_key, picc), mac)


def _cmac(key: bytes, message: bytes) -> bytes:
    mac = CMAC(algorithms.AES(key))
    mac.update(message)
    return mac.finalize()
