"""SUN and key diversification against the vectors that NXP published (AN12196, AN10922)."""

import pytest
from Crypto.Cipher import AES
from Crypto.Hash import CMAC
from hypothesis import given
from hypothesis import strategies as st

from taprail_common import sun
from taprail_common.errors import InputError
from taprail_common.sun import (
    PiccData,
    decrypt_picc_data,
    diversify,
    mac_matches,
    plain_picc_data,
    sun_mac,
)

ZERO_KEY = bytes(16)
VECTOR = PiccData(bytes.fromhex("04DE5F1EACC040"), 61)


def test_an12196_picc_data() -> None:
    picc = decrypt_picc_data(ZERO_KEY, bytes.fromhex("EF963FF7828658A599F3041510671E88"))
    assert picc == VECTOR


def test_a_plain_mirror_says_the_same() -> None:
    assert plain_picc_data("04DE5F1EACC040", "00003D") == VECTOR


def test_an12196_mac() -> None:
    assert sun_mac(ZERO_KEY, VECTOR).hex().upper() == "94EED9EE65337086"
    assert mac_matches(ZERO_KEY, VECTOR, bytes.fromhex("94EED9EE65337086"))


def test_an12196_mac_over_a_part_of_the_file() -> None:
    """Where a card mirrors encrypted file data too, its MAC begins there."""
    picc = decrypt_picc_data(ZERO_KEY, bytes.fromhex("FD91EC264309878BE6345CBE53BADF40"))
    assert picc == PiccData(bytes.fromhex("04958CAA5C5E80"), 8)
    mac = sun_mac(ZERO_KEY, picc, b"CEE9A53E3E463EF1F459635736738962&cmac=")
    assert mac.hex().upper() == "ECC1E7F6C6C73BF6"


def test_a_published_plain_mirror() -> None:
    """The example of https://github.com/nfc-developer/sdm-backend for an unkeyed tag."""
    mac = sun_mac(ZERO_KEY, plain_picc_data("041E3C8A2D6B80", "000006"))
    assert mac.hex().upper() == "4B00064004B0B3D3"


def test_an10922_example_of_a_diversified_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 2.2.2: with the application and system of the note's example instead of ours."""
    monkeypatch.setattr(sun, "_DIVERSIFY_SYSTEM", bytes.fromhex("3042F54E585020416275"))
    master = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
    key = diversify(master, bytes.fromhex("04782E21801D80"))
    assert key.hex().upper() == "A8DD63A3B89D54B37CA802473FDA9175"


@given(st.integers(0, 63))
def test_one_wrong_bit_is_noticed(bit: int) -> None:
    mac = int.from_bytes(bytes.fromhex("94EED9EE65337086"), "big") ^ (1 << bit)
    assert not mac_matches(ZERO_KEY, VECTOR, mac.to_bytes(8, "big"))


def test_diversified_keys_follow_an10922() -> None:
    """Built here from the note's own formula, D = CMAC(K, 01 || M), with another library."""
    master, uid = bytes(range(16)), bytes.fromhex("04782E21801D80")
    expected = CMAC.new(master, b"\x01" + uid + bytes.fromhex("D27600") + b"TapRail", ciphermod=AES)
    assert diversify(master, uid) == expected.digest()
    assert diversify(master, uid) != diversify(master, bytes.fromhex("04782E21801D81"))


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_picc_data_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InputError) as caught:
        decrypt_picc_data(ZERO_KEY, bytes(length))
    assert caught.value.field == "proof.piccData"


def test_a_card_of_another_issuer_is_not_ours() -> None:
    with pytest.raises(InputError) as caught:
        decrypt_picc_data(b"\x01" * 16, bytes.fromhex("EF963FF7828658A599F3041510671E88"))
    assert caught.value.code == "card_unknown"


def test_the_uid_is_not_in_the_repr() -> None:
    assert "04de5f" not in repr(VECTOR).lower()
