"""Signatures of signing cards, in every form that DER allows, and bytes that are none."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import utils
from eth_account import Account
from hypothesis import assume, given
from hypothesis import strategies as st

from taprail_common.errors import InputError, SignatureError
from taprail_common.secp256k1 import MAX_DER_BYTES, ORDER, CardKey, CardSignature

SECRET = bytes(range(1, 33))
ACCOUNT = Account.from_key(SECRET)
POINT = b"\x04" + bytes(ACCOUNT._key_obj.public_key.to_bytes())
secrets = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)
# Of any length: numbers that need few bytes are as legal as those that need 33.
numbers = st.integers(1, 256).flatmap(
    lambda bits: st.integers(1, min(2**bits, ORDER) - 1) | st.just(1)
)


def der(r: int, s: int, zeros: tuple[int, int] = (0, 0)) -> bytes:
    """As X.690 has it, with so many zeros too many before each integer."""
    parts = b""
    for number, extra in zip((r, s), zeros, strict=True):
        value = bytes(extra) + number.to_bytes(number.bit_length() // 8 + 1, "big")
        parts += bytes([2, len(value)]) + value
    return bytes([0x30, len(parts)]) + parts


@given(r=numbers, s=numbers)
def test_every_legal_der_form_is_read_with_the_lower_s(r: int, s: int) -> None:
    read = CardSignature.from_der(der(r, s))
    assert (read.r, read.s) == (r, s if s <= ORDER // 2 else ORDER - s)
    assert CardSignature.from_der(utils.encode_dss_signature(r, s)) == read
    assert CardSignature.from_compact(read.compact()) == read


@given(r=st.integers(1, 2**247 - 1), s=st.integers(1, 2**247 - 1))
def test_a_zero_too_many_changes_nothing(r: int, s: int) -> None:
    """Keycards keep the length of 32 bytes when they have made s smaller."""
    assert CardSignature.from_der(der(r, s, (1, 1))) == CardSignature.from_der(der(r, s))


@given(secret=secrets, digest=digests, high=st.booleans())
def test_what_a_key_has_signed_is_believed(secret: bytes, digest: bytes, high: bool) -> None:
    account = Account.from_key(secret)
    signed = account.unsafe_sign_hash(digest)
    read = CardSignature.from_der(der(signed.r, ORDER - signed.s if high else signed.s))
    key = CardKey(b"\x04" + bytes(account._key_obj.public_key.to_bytes()))
    assert key.address == account.address.lower()
    key.check(digest, read)
    with pytest.raises(SignatureError):
        key.check(bytes(reversed(digest)) + b"", CardSignature(read.r, read.s % (ORDER // 2) + 1))


@given(secret=secrets, digest=digests, bit=st.integers(0, 255))
def test_another_digest_is_not_believed(secret: bytes, digest: bytes, bit: int) -> None:
    assume(secret != SECRET)
    signed = ACCOUNT.unsafe_sign_hash(digest)
    signature = CardSignature.from_der(der(signed.r, signed.s))
    other = (int.from_bytes(digest, "big") ^ (1 << bit)).to_bytes(32, "big")
    with pytest.raises(SignatureError):
        CardKey(POINT).check(other, signature)
    stranger = Account.from_key(secret)._key_obj.public_key.to_bytes()
    with pytest.raises(SignatureError):
        CardKey(b"\x04" + bytes(stranger)).check(digest, signature)


@pytest.mark.parametrize(
    ("r", "s"), [(0, 1), (1, 0), (ORDER, 1), (1, ORDER), (1, ORDER + 1), (2**256 - 1, 1)]
)
def test_numbers_out_of_range_are_refused(r: int, s: int) -> None:
    with pytest.raises(InputError, match="out of range"):
        CardSignature.from_der(der(r, s))


def test_a_higher_s_is_refused_where_nothing_is_normalised() -> None:
    compact = (1).to_bytes(32, "big") + (ORDER // 2 + 1).to_bytes(32, "big")
    with pytest.raises(InputError, match="out of range"):
        CardSignature.from_compact(compact)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_compact_signature_has_64_bytes(size: int) -> None:
    with pytest.raises(InputError, match="64 bytes"):
        CardSignature.from_compact(bytes(size))


GOOD = der(ORDER - 2, ORDER - 3)


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\0",
        b"\x31" + GOOD[1:],
        GOOD[:2] + b"\x03" + GOOD[3:],
        bytes([0x30, 0x81]) + GOOD[1:],
        bytes.fromhex("3006020180020101"),  # negative
        bytes.fromhex("3006020002020101"),  # empty
        bytes.fromhex("300602010102010101"),
        bytes.fromhex("3009020101020101020101"),  # three integers
        der(1, 1, (33, 0)),
        der(2**255, 1, (1, 0)),
    ],
)
def test_what_is_no_signature_is_refused(wrong: bytes) -> None:
    with pytest.raises(InputError, match="signature"):
        CardSignature.from_der(wrong)


@given(st.binary(max_size=MAX_DER_BYTES + 8))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read = CardSignature.from_der(data)
    except InputError:
        return
    assert CardSignature.from_der(der(read.r, read.s)) == read


@given(at=st.integers(0, len(GOOD) - 1), to=st.integers(0, 255))
def test_a_changed_byte_never_gives_the_same_signature(at: int, to: int) -> None:
    changed = GOOD[:at] + bytes([to]) + GOOD[at + 1 :]
    assume(changed != GOOD)
    try:
        assert CardSignature.from_der(changed) != CardSignature.from_der(GOOD)
    except InputError:
        return


@pytest.mark.parametrize(
    "wrong",
    [b"", POINT[:-1], POINT + b"\0", b"\x02" + POINT[1:], b"\x04" + bytes(64), POINT[:-1] + b"\0"],
)
def test_what_is_no_key_is_refused(wrong: bytes) -> None:
    with pytest.raises(InputError, match="publicKey"):
        CardKey(wrong)


def test_a_key_shows_nothing_of_itself() -> None:
    assert POINT.hex()[2:10] not in repr(CardKey(POINT))
