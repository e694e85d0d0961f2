"""The cards' maths against NXP's published examples."""

from __future__ import annotations

import pytest
from Crypto.Cipher import AES
from Crypto.Hash import CMAC
from hypothesis import given
from hypothesis import strategies as st

from taprail_hwsim.cards import Ntag424
from taprail_hwsim.cards.card_crypto import (
    cmac,
    diversified_key,
    encrypted_picc_data,
    file_read_key,
    sdm_mac,
)

ZERO_KEY = bytes(16)
AN12196_UID = bytes.fromhex("04DE5F1EACC040")
AN12196_PICC = bytes.fromhex("EF963FF7828658A599F3041510671E88")
AN12196_MAC = bytes.fromhex("94EED9EE65337086")


def test_an12196_example_of_encrypted_picc_data_and_mac() -> None:
    plain = AES.new(ZERO_KEY, AES.MODE_ECB).decrypt(AN12196_PICC)
    assert plain[:11] == b"\xc7" + AN12196_UID + (61).to_bytes(3, "little")
    assert encrypted_picc_data(ZERO_KEY, AN12196_UID, 61, plain[11:]) == AN12196_PICC
    assert sdm_mac(ZERO_KEY, AN12196_UID, 61) == AN12196_MAC


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=70))
def test_cmac_is_that_of_a_library(key: bytes, message: bytes) -> None:
    assert cmac(key, message) == CMAC.new(key, message, ciphermod=AES).digest()


def test_an10922_example_of_a_diversified_aes_128_key() -> None:
    key = diversified_key(
        bytes.fromhex("00112233445566778899AABBCCDDEEFF"),
        bytes.fromhex("04782E21801D803042F54E585020416275"),
    )
    assert key == bytes.fromhex("A8DD63A3B89D54B37CA802473FDA9175")


def test_a_short_diversification_input_is_still_padded_to_two_blocks() -> None:
    # CBC over two blocks, computed by hand: the second block is the padding alone under K2.
    key = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
    ecb = AES.new(key, AES.MODE_ECB)
    doubled = int.from_bytes(ecb.encrypt(bytes(16)), "big")
    for _ in range(2):
        doubled = (doubled << 1) ^ (0x87 | 1 << 128 if doubled >> 127 else 0)
    first = ecb.encrypt((b"\x01" + b"ABC" + b"\x80").ljust(16, b"\x00"))
    second = int.from_bytes(first, "big") ^ doubled
    assert diversified_key(key, b"ABC") == ecb.encrypt(second.to_bytes(16, "big"))


@pytest.mark.parametrize("size", [0, 32])
def test_a_diversification_input_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="1 to 31"):
        diversified_key(ZERO_KEY, bytes(size))


def test_file_keys_differ_per_card_and_per_master() -> None:
    keys = {
        file_read_key(master, uid)
        for master in (ZERO_KEY, b"\x01" * 16)
        for uid in (AN12196_UID, bytes(7))
    }
    assert len(keys) == 4


@pytest.mark.parametrize("counter", [-1, 1 << 24])
def test_a_counter_out_of_24_bits_is_refused(counter: int) -> None:
    with pytest.raises(ValueError, match="24 bits"):
        sdm_mac(ZERO_KEY, AN12196_UID, counter)


def test_a_sun_proof_is_pure_and_in_capitals() -> None:
    card = Ntag424(AN12196_UID, ZERO_KEY, ZERO_KEY, counter=5)
    picc, mac = card.sun_proof(61)
    assert mac == AN12196_MAC.hex().upper()
    assert (picc, mac) == card.sun_proof(61)
    assert len(picc) == 32
    assert picc == picc.upper()
    assert card.counter == 5
