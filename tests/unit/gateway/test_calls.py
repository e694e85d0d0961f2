"""Call data by hand against eth_abi, and what contracts answer, whole and broken."""

import pytest
from eth_abi.abi import encode
from eth_utils.abi import function_signature_to_4byte_selector as selector
from hypothesis import given
from hypothesis import strategies as st

from taprail_common.eip3009 import TransferAuthorization
from taprail_gateway.settle import calls
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.signer import Signature

addresses = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
uint256 = st.integers(0, 2**256 - 1)
words = st.binary(min_size=32, max_size=32)
TRANSFER_TYPES = [
    *("address", "address", "uint256", "uint256", "uint256", "bytes32"),
    *("uint8", "bytes32", "bytes32"),
]


@given(addresses, addresses, uint256, uint256, uint256, words, st.integers(0, 1), words, words)
def test_an_authorizations_call_data_is_what_eth_abi_packs(
    payer: str,
    payee: str,
    amount: int,
    after: int,
    before: int,
    nonce: bytes,
    parity: int,
    r: bytes,
    s: bytes,
) -> None:
    authorization = TransferAuthorization(payer, payee, amount, after, before, nonce)
    signature = Signature(parity, int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    expected = selector(f"transferWithAuthorization({','.join(TRANSFER_TYPES)})") + encode(
        TRANSFER_TYPES, [payer, payee, amount, after, before, nonce, 27 + parity, r, s]
    )
    assert calls.transfer_with_authorization(authorization, signature) == expected


def test_the_selector_is_the_published_one() -> None:
    """0xe3ee160e is transferWithAuthorization's with v, r, s, as in USDC's published ABI."""
    authorization = TransferAuthorization("0x" + "11" * 20, "0x" + "22" * 20, 1, 0, 1, b"\0" * 32)
    data = calls.transfer_with_authorization(authorization, Signature(0, 1, 1))
    assert data[:4].hex() == "e3ee160e"
    assert calls.aggregate3([])[:4].hex() == "82ad56cb"
    assert calls.balance_of("0x" + "11" * 20)[:4].hex() == "70a08231"


@given(st.lists(st.tuples(addresses, st.binary(max_size=300)), max_size=8))
def test_a_batch_lets_each_call_fail_by_itself(batch: list[tuple[str, bytes]]) -> None:
    rows = [(address, True, data) for address, data in batch]
    assert calls.aggregate3(batch)[4:] == encode(["(address,bool,bytes)[]"], [rows])


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=64)), max_size=8))
def test_results_of_a_batch_come_back_in_order(results: list[tuple[bool, bytes]]) -> None:
    reply = encode(["(bool,bytes)[]"], [results])
    expected = [data if succeeded else None for succeeded, data in results]
    assert calls.decode_aggregate3(reply, len(results)) == expected
    with pytest.raises(ChainError, match=r"results (of|for)"):
        calls.decode_aggregate3(reply, len(results) + 1)


@given(st.binary(max_size=200))
def test_garbage_is_an_error_and_never_a_result(garbage: bytes) -> None:
    with pytest.raises(ChainError):
        calls.decode_aggregate3(garbage, 3)


def test_an_answer_that_says_one_big_thing_many_times_is_not_unpacked() -> None:
    rows, size = 1_000, 100_000  # 132 kB that stand for 100 MB
    offsets = b"".join((rows * 32).to_bytes(32, "big") for _ in range(rows))
    big = encode(["bool", "bytes"], [True, bytes(size)])
    reply = (32).to_bytes(32, "big") + rows.to_bytes(32, "big") + offsets + big
    with pytest.raises(ChainError, match="bytes for 3 calls"):
        calls.decode_aggregate3(reply, 3)


@pytest.mark.parametrize("word", [None, b"", b"\0" * 31, b"\0" * 33])
def test_a_number_is_one_word(word: bytes | None) -> None:
    with pytest.raises(ChainError, match="one 32-byte word"):
        calls.decode_uint(word)


def test_texts_and_their_absence() -> None:
    assert calls.decode_text(encode(["string"], ["Café Dollar"])) == "Café Dollar"
    for broken in (b"", b"\xff" * 32, encode(["bytes"], [b"\xff\xfe"])):
        with pytest.raises(ChainError, match="text"):
            calls.decode_text(broken)


@given(addresses)
def test_an_address_survives_its_topic(address: str) -> None:
    assert calls.topic_address(calls.address_topic(address)) == address


def test_the_topics_are_the_published_ones() -> None:
    """ERC-20's and EIP-3009's events, as block explorers list them."""
    assert calls.TRANSFER_TOPIC.startswith("0xddf252ad1be2c89b69c2b068fc378daa")
    assert calls.AUTHORIZATION_USED_TOPIC.startswith("0x98de503528ee59b575ef0c0a2576a824")
    assert calls.AUTHORIZATION_CANCELED_TOPIC.startswith("0x1cdd46ff242716cdaa72d159d339a485")


def test_a_reason_with_anything_behind_its_text_is_read_all_the_same() -> None:
    text = b"ERC20: transfer amount exceeds balance"
    words = (32).to_bytes(32, "big") + len(text).to_bytes(32, "big")
    padded = text.ljust(63, b"\0") + b"\x41"  # as FiatTokenV2_2 says it
    assert calls.revert_reason(bytes.fromhex("08c379a0") + words + padded) == text.decode()
