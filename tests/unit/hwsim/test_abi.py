"""The simulator's small ABI codec against eth_abi, which others wrote."""

import pytest
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from taprail_hwsim import abi

ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
UINTS = st.integers(0, 2**256 - 1)
WORDS = st.binary(min_size=32, max_size=32)


@given(ADDRESSES, UINTS, WORDS, st.booleans())
def test_static_arguments(address: str, number: int, word: bytes, flag: bool) -> None:
    types = ["address", "uint256", "bytes32", "bool"]
    values: list[abi.Value] = [address, number, word, flag]
    assert abi.encode_values(types, values) == encode(types, values)
    assert abi.decode_address("0x" + encode(["address"], [address]).hex()) == address
    assert abi.decode_uint("0x" + encode(["uint256"], [number]).hex()) == number


@given(st.text(max_size=70), st.binary(max_size=70), UINTS)
def test_dynamic_arguments(text: str, data: bytes, number: int) -> None:
    types = ["string", "uint256", "bytes"]
    assert abi.encode_values(types, [text, number, data]) == encode(types, [text, number, data])
    assert abi.decode_string("0x" + encode(["string"], [text]).hex()) == text


@given(st.lists(st.tuples(ADDRESSES, st.binary(max_size=70)), max_size=5), st.booleans())
def test_aggregate3_call(calls: list[tuple[str, bytes]], allow_failure: bool) -> None:
    ours = abi.encode_aggregate3(
        [(target, "0x" + data.hex()) for target, data in calls], allow_failure=allow_failure
    )
    arguments = bytes.fromhex(ours[2:])
    # The published Multicall3's selector of aggregate3.
    assert arguments[:4].hex() == "82ad56cb"
    expected = [(target, allow_failure, data) for target, data in calls]
    assert decode(["(address,bool,bytes)[]"], arguments[4:]) == (tuple(expected),)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=70)), max_size=5))
def test_aggregate3_results(results: list[tuple[bool, bytes]]) -> None:
    raw = "0x" + encode(["(bool,bytes)[]"], [results]).hex()
    assert [(one.success, one.return_data) for one in abi.decode_aggregate3(raw)] == results


def test_a_call_starts_with_the_selector_of_its_signature() -> None:
    call = abi.encode_call("mint(address,uint256)", "0x" + "11" * 20, 5)
    assert call[:10] == "0x" + keccak(text="mint(address,uint256)")[:4].hex()
    assert abi.encode_call("name()") == "0x06fdde03"


def test_a_revert_reason_is_read_from_error_string_alone() -> None:
    reason = keccak(text="Error(string)")[:4] + encode(["string"], ["no money"])
    assert abi.decode_revert_reason(reason) == "no money"
    assert abi.decode_revert_reason(b"") is None
    assert abi.decode_revert_reason(keccak(text="Panic(uint256)")[:4] + bytes(32)) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("address", "0x1234"),
        ("address", "1234567890123456789012345678901234567890"),
        ("bytes32", b"short"),
        ("tuple", "0x"),
    ],
)
def test_what_does_not_fit_its_type_is_refused(kind: str, value: abi.Value) -> None:
    with pytest.raises(ValueError, match=r"takes|hex|not know"):
        abi.encode_values([kind], [value])


def test_numbers_beyond_a_word_are_refused() -> None:
    with pytest.raises(OverflowError):
        abi.encode_values(["uint256"], [2**256])
    with pytest.raises(OverflowError):
        abi.encode_values(["uint256"], [-1])


@pytest.mark.parametrize("result", ["0x", "0x" + "00" * 31, "0x" + "ff" * 33])
def test_a_short_or_long_word_is_refused(result: str) -> None:
    with pytest.raises(ValueError, match="expected one word"):
        abi.decode_uint(result)


def test_a_cut_string_is_refused() -> None:
    whole = encode(["string"], ["x" * 40]).hex()
    with pytest.raises(ValueError, match="ends before"):
        abi.decode_string("0x" + whole[:-70])
