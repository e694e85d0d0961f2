"""Every byte of a signature and of a transaction, compared with eth_account on random cases."""

from coincurve import PrivateKey
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from hypothesis import given
from hypothesis import strategies as st

from taprail_common.eip3009 import TransferAuthorization, domain_separator
from taprail_gateway.settle.fees import Fees
from taprail_gateway.settle.signer import rlp_encode, sign_authorization, sign_transaction

# SEC 2 clause 2.4.1
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

keys = st.integers(1, CURVE_ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
addresses = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
uint64 = st.integers(0, 2**64 - 1)

FIELDS = [
    {"name": "from", "type": "address"},
    {"name": "to", "type": "address"},
    {"name": "value", "type": "uint256"},
    {"name": "validAfter", "type": "uint256"},
    {"name": "validBefore", "type": "uint256"},
    {"name": "nonce", "type": "bytes32"},
]
authorizations = st.builds(
    TransferAuthorization,
    payer=addresses,
    payee=addresses,
    amount_units=st.integers(0, 2**256 - 1),
    valid_after_s=uint64,
    valid_before_s=uint64,
    nonce=st.binary(min_size=32, max_size=32),
)


@given(keys, authorizations, st.text(max_size=40), st.text(max_size=8), uint64, addresses)
def test_an_authorization_is_signed_as_eth_account_signs_it(
    raw_key: bytes,
    authorization: TransferAuthorization,
    name: str,
    version: str,
    chain_id: int,
    token: str,
) -> None:
    domain = {
        "name": name,
        "version": version,
        "chainId": chain_id,
        "verifyingContract": to_checksum_address(token),
    }
    message = {
        "from": authorization.payer,
        "to": authorization.payee,
        "value": authorization.amount_units,
        "validAfter": authorization.valid_after_s,
        "validBefore": authorization.valid_before_s,
        "nonce": authorization.nonce,
    }
    types = {"TransferWithAuthorization": FIELDS}
    separator = domain_separator(name, version, chain_id, token)
    assert separator == encode_typed_data(domain, types, message).header

    expected = Account.sign_typed_data(raw_key, domain, types, message)
    signature = sign_authorization(PrivateKey(raw_key), authorization, separator)
    assert (signature.v, signature.r, signature.s) == (expected.v, expected.r, expected.s)
    assert signature.v in {27, 28}
    assert signature.s <= CURVE_ORDER // 2


@given(
    keys,
    st.integers(1, 2**53),
    uint64,
    st.integers(0, 10**15),
    st.integers(0, 10**15),
    st.integers(21_000, 2**24),
    addresses,
    st.binary(max_size=400),
)
def test_a_transaction_is_what_eth_account_signs_and_reads(
    raw_key: bytes,
    chain_id: int,
    nonce: int,
    max_fee_wei: int,
    priority_fee_wei: int,
    gas: int,
    to: str,
    data: bytes,
) -> None:
    fees = Fees(max_fee_wei, priority_fee_wei)
    ours = sign_transaction(
        PrivateKey(raw_key), chain_id=chain_id, nonce=nonce, fees=fees, gas=gas, to=to, data=data
    )
    fields = {
        "type": 2,
        "chainId": chain_id,
        "nonce": nonce,
        "maxFeePerGas": max_fee_wei,
        "maxPriorityFeePerGas": priority_fee_wei,
        "gas": gas,
        "to": to_checksum_address(to),
        "value": 0,
        "data": "0x" + data.hex(),
    }
    expected = Account.sign_transaction(fields, raw_key)
    assert ours.raw == bytes(expected.raw_transaction)
    assert ours.tx_hash == "0x" + bytes(expected.hash).hex()
    read = TypedTransaction.from_bytes(HexBytes(ours.raw)).as_dict()
    assert (read["nonce"], read["gas"], read["data"]) == (nonce, gas, data)
    assert Account.recover_transaction(ours.raw) == Account.from_key(raw_key).address


def test_rlp_of_the_yellow_papers_cases() -> None:
    assert rlp_encode(b"dog") == b"\x83dog"
    assert rlp_encode([b"cat", b"dog"]) == b"\xc8\x83cat\x83dog"
    assert rlp_encode(b"") == b"\x80"
    assert rlp_encode(0) == b"\x80"
    assert rlp_encode(15) == b"\x0f"
    assert rlp_encode(1024) == b"\x82\x04\x00"
    assert rlp_encode([]) == b"\xc0"
    assert rlp_encode([[], [[]], [[], [[]]]]) == bytes.fromhex("c7c0c1c0c3c0c1c0")
    assert rlp_encode(b"a" * 56) == b"\xb8\x38" + b"a" * 56
