"""The card's own maths: encrypted PICC data, the SDM MAC and per-card keys.

Written from NXP AN12196 (NTAG 424 DNA features and hints), NT4H2421Gx rev. 3.0 and AN10922 (key
diversification), on pycryptodome. It shares nothing with the gateway, which checks these proofs
with another library: a mistake must not pass on both sides.
"""

from __future__ import annotations

from typing import Final

from Crypto.Cipher import AES

KEY_BYTES: Final = 16
BLOCK_BYTES: Final = 16
UID_BYTES: Final = 7
PADDING_BYTES: Final = 5
COUNTER_MAX: Final = 0xFFFFFF  # 24 bits (NT4H2421Gx clause 9.3.1)

# NT4H2421Gx table 21: UID mirrored (bit 7), counter mirrored (bit 6), UID length 7.
PICC_DATA_TAG: Final = 0xC7
# NT4H2421Gx clause 9.3.9.1: SV2 = 3C C3 00 01 00 80 [|| UID] [|| SDMReadCtr].
SV2_PREFIX: Final = bytes.fromhex("3CC300010080")

# AN10922 clause 2.2: the constant before the diversification input of an AES-128 key.
DIV_CONSTANT_AES128: Final = b"\x01"
DIV_PADDED_BYTES: Final = 32
# Our diversification input is UID || application || system: the first bytes of the NDEF
# application's name, and a name that keeps these keys apart from other schemes on the same master.
DIV_APPLICATION: Final = bytes.fromhex("D27600")
DIV_SYSTEM: Final = b"TapRail"


def encrypted_picc_data(meta_read_key: bytes, uid: bytes, counter: int, padding: bytes) -> bytes:
    """PICCENCData (16 bytes): E(SDMMetaReadKey; tag || UID || counter || padding), zero IV.

    One block under CBC with a zero IV is one block of ECB. `padding`: 5 bytes of the card's choice.
    """
    plain = bytes([PICC_DATA_TAG]) + uid + _counter_bytes(counter) + padding
    return bytes(AES.new(_key(meta_read_key), AES.MODE_ECB).encrypt(plain))


def sdm_mac(file_read_key: bytes, uid: bytes, counter: int, mac_input: bytes = b"") -> bytes:
    """SDMMAC (8 bytes) over `mac_input`, empty when the MAC covers no file data."""
    session_key = cmac(file_read_key, SV2_PREFIX + uid + _counter_bytes(counter))
    return cmac(session_key, mac_input)[1::2]  # MACt: the even-numbered bytes, counted from one


def cmac(key: bytes, message: bytes) -> bytes:
    """AES-CMAC (NIST SP 800-38B), 16 bytes.

    Not pycryptodome's: that one takes three times as long for the short messages of a card.
    """
    blocks = max(1, -(-len(message) // BLOCK_BYTES))
    return _masked_cbc_mac(key, message, blocks * BLOCK_BYTES)


def diversified_key(master_key: bytes, diversification_input: bytes) -> bytes:
    """AN10922 clause 2.2: one AES-128 key out of a master key and 1 to 31 bytes.

    Like CMAC, but always over two blocks: an input of one block or less is padded to 32 bytes.
    """
    if not 1 <= len(diversification_input) < DIV_PADDED_BYTES:
        raise ValueError("the diversification input has 1 to 31 bytes")
    message = DIV_CONSTANT_AES128 + diversification_input
    return _masked_cbc_mac(master_key, message, DIV_PADDED_BYTES)


def file_read_key(master_key: bytes, uid: bytes) -> bytes:
    """The SDMFileReadKey of the card with this UID: AN10922 over UID || D27600 || "TapRail"."""
    return diversified_key(master_key, uid + DIV_APPLICATION + DIV_SYSTEM)


def _masked_cbc_mac(key: bytes, message: bytes, size: int) -> bytes:
    """CBC-MAC over `message` padded to `size`; the last block masked by K1 or, padded, K2.

    K1 and K2 are E(K; 0) doubled once and twice in GF(2^128) (SP 800-38B clause 6.1).
    """
    cipher = AES.new(_key(key), AES.MODE_ECB)
    mask = _doubled(int.from_bytes(cipher.encrypt(bytes(BLOCK_BYTES)), "big"))
    if len(message) < size:
        message = (message + b"\x80").ljust(size, b"\x00")
        mask = _doubled(mask)
    state = 0
    for at in range(0, size, BLOCK_BYTES):
        state ^= int.from_bytes(message[at : at + BLOCK_BYTES], "big")
        if at + BLOCK_BYTES == size:
            state ^= mask
        state = int.from_bytes(cipher.encrypt(state.to_bytes(BLOCK_BYTES, "big")), "big")
    return state.to_bytes(BLOCK_BYTES, "big")


def _doubled(number: int) -> int:
    return (number << 1) ^ ((1 << 128 | 0x87) if number >> 127 else 0)


def _counter_bytes(counter: int) -> bytes:
    if not 0 <= counter <= COUNTER_MAX:
        raise ValueError("the SDM read counter has 24 bits")
    return counter.to_bytes(3, "little")  # clause 9.3.1: least significant byte first


def _key(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError("an AES-128 key has 16 bytes")
    return key
