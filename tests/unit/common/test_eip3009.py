"""EIP-712/EIP-3009 digests: the published hashes, and eth_account on random transfers."""

from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from taprail_common.eip3009 import (
    TRANSFER_TYPEHASH,
    TransferAuthorization,
    address_word,
    domain_separator,
)
from taprail_common.errors import InputError
from taprail_common.ids import payment_id

addresses = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
uints = st.integers(0, 2**256 - 1)


def test_published_typehash() -> None:
    """The constant printed in EIP-3009's specification."""
    assert TRANSFER_TYPEHASH.hex() == (
        "7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267"
    )


def test_published_domain_separator_of_usdc() -> None:
    """What USDC's DOMAIN_SEPARATOR() returns on Ethereum mainnet."""
    separator = domain_separator("USD Coin", "2", 1, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48")
    assert separator.hex() == "06c37168a7db5138defc7866392bb87a741f9b3d104deb5094588ce041cae335"


@given(
    payer=addresses,
    payee=addresses,
    amount=uints,
    after=uints,
    before=uints,
    nonce=st.binary(min_size=32, max_size=32),
    chain=st.integers(1, 2**63),
    token=addresses,
)
def test_digest_equals_eth_account(
    payer: str,
    payee: str,
    amount: int,
    after: int,
    before: int,
    nonce: bytes,
    chain: int,
    token: str,
) -> None:
    names = ("from", "to", "value", "validAfter", "validBefore", "nonce")
    types = ("address", "address", "uint256", "uint256", "uint256", "bytes32")
    message: dict[str, Any] = dict(
        zip(names, (payer, payee, amount, after, before, nonce), strict=True)
    )
    signable = encode_typed_data(
        {"name": "Dev Dollar", "version": "1", "chainId": chain, "verifyingContract": token},
        {
            "TransferWithAuthorization": [
                {"name": name, "type": kind} for name, kind in zip(names, types, strict=True)
            ]
        },
        message,
    )
    expected = keccak(b"\x19" + signable.version + signable.header + signable.body)
    authorization = TransferAuthorization(payer, payee, amount, after, before, nonce)
    assert authorization.digest(domain_separator("Dev Dollar", "1", chain, token)) == expected


@pytest.mark.parametrize("wrong", ["", "0x", "0x12", "0x" + "g" * 40, "0x" + "0" * 42])
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(InputError):
        address_word(wrong)


def test_payment_id_depends_on_terminal_and_request_alone() -> None:
    one = payment_id("t-1", "req_1")
    assert one == payment_id("t-1", "req_1")
    assert len({one, payment_id("t-2", "req_1"), payment_id("t-1", "req_2")}) == 3
    assert one == "0x" + keccak(b"taprail/payment/v1\x00t-1\x00req_1").hex()
