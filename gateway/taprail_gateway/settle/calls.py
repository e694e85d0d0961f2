"""What is said to the contracts, and what they say in logs: packing and unpacking, pure.

Call data, which every payment needs, is packed by hand and compared with eth_abi in the tests;
answers are few and go through eth_abi. Sources: EIP-3009, ERC-20, the Solidity ABI specification,
and https://www.multicall3.com for the interface of Multicall3.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from taprail_common.eip3009 import TransferAuthorization, address_word, uint_word
from taprail_common.hashing import keccak256
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.signer import Signature

MULTICALL3_ADDRESS: Final = "0xca11bde05977b3631167028862be2a173976ca11"
"""Where Multicall3 is on every chain that has it (multicall3.com)."""


def _selector(signature: str) -> bytes:
    return keccak256(signature.encode())[:4]


def _topic(signature: str) -> str:
    return "0x" + keccak256(signature.encode()).hex()


_TRANSFER: Final = _selector(
    "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"
)
_AGGREGATE3: Final = _selector("aggregate3((address,bool,bytes)[])")
_BALANCE_OF: Final = _selector("balanceOf(address)")
_AUTHORIZATION_STATE: Final = _selector("authorizationState(address,bytes32)")

# An answer of one word takes 160 bytes with its flag, length and offsets; the reason of a call that
# failed some more.
_RESULT_BYTES: Final = 512
_RESULT_HEAD_BYTES: Final = 64

_ERROR: Final = _selector("Error(string)")
"""What `require` with a text fails with (Solidity, "Panic via assert and Error via require")."""

NAME: Final = _selector("name()")
VERSION: Final = _selector("version()")
SYMBOL: Final = _selector("symbol()")
DECIMALS: Final = _selector("decimals()")
DOMAIN_SEPARATOR: Final = _selector("DOMAIN_SEPARATOR()")

TRANSFER_TOPIC: Final = _topic("Transfer(address,address,uint256)")
AUTHORIZATION_USED_TOPIC: Final = _topic("AuthorizationUsed(address,bytes32)")
AUTHORIZATION_CANCELED_TOPIC: Final = _topic("AuthorizationCanceled(address,bytes32)")


def transfer_with_authorization(
    authorization: TransferAuthorization, signature: Signature
) -> bytes:
    """Call data that carries out a signed authorization."""
    return b"".join(
        (
            _TRANSFER,
            authorization.words(),
            uint_word(signature.v),
            uint_word(signature.r),
            uint_word(signature.s),
        )
    )


def aggregate3(calls: Sequence[tuple[str, bytes]], *, may_fail: bool = True) -> bytes:
    """Call data for Multicall3: (contract, call data) each; `may_fail`: any of them by itself."""
    rows = [_call3(contract, data, may_fail) for contract, data in calls]
    ends = accumulate((len(row) for row in rows), initial=len(rows) * 32)
    offsets = [uint_word(start) for start, _ in zip(ends, rows, strict=False)]
    return b"".join((_AGGREGATE3, uint_word(32), uint_word(len(rows)), *offsets, *rows))


def _call3(contract: str, data: bytes, may_fail: bool) -> bytes:
    """The tuple (address, allowFailure, bytes): its bytes begin after three words."""
    padding = bytes(-len(data) % 32)
    return b"".join(
        (
            address_word(contract),
            uint_word(int(may_fail)),
            uint_word(96),
            uint_word(len(data)),
            data,
            padding,
        )
    )


class CallResult(NamedTuple):
    """What one call of an aggregate3 came to."""

    succeeded: bool
    data: bytes
    """What it returned, or what it failed with."""


def decode_results(reply: bytes, expected: int) -> list[CallResult]:
    """The result of each call; ChainError unless there are so many."""
    # Rows are found by offsets, so a megabyte may say thousands of times "that megabyte".
    if len(reply) > _RESULT_HEAD_BYTES + _RESULT_BYTES * expected:
        raise ChainError(f"aggregate3 gave {len(reply)} bytes for {expected} calls")
    try:
        (rows,) = decode(["(bool,bytes)[]"], reply)
    except (DecodingError, OverflowError) as exc:
        raise ChainError("the node's answer is no result of aggregate3") from exc
    if len(rows) != expected:
        raise ChainError(f"aggregate3 gave {len(rows)} results for {expected} calls")
    return [CallResult(succeeded, data) for succeeded, data in rows]


def decode_aggregate3(reply: bytes, expected: int) -> list[bytes | None]:
    """What each call returned, None for one that failed; ChainError unless there are so many."""
    results = decode_results(reply, expected)
    return [result.data if result.succeeded else None for result in results]


def revert_reason(data: bytes) -> str:
    """Why a call failed, as its contract says it; empty when it says nothing that can be read."""
    if data[:4] == _ERROR:
        try:
            return decode_text(data[4:])
        except ChainError:
            return ""
    return "0x" + data[:4].hex() if data else ""


def balance_of(account: str) -> bytes:
    """Call data: the token units of an account."""
    return _BALANCE_OF + address_word(account)


def authorization_state(payer: str, nonce: str) -> bytes:
    """Call data: whether an authorization nonce was used, or cancelled."""
    return _AUTHORIZATION_STATE + address_word(payer) + bytes.fromhex(nonce.removeprefix("0x"))


def decode_uint(word: bytes | None) -> int:
    """A uint256 or bool that a call returned; ChainError when it returned something else."""
    if word is None or len(word) != 32:
        raise ChainError("a contract did not answer with one 32-byte word")
    return int.from_bytes(word, "big")


def decode_text(data: bytes) -> str:
    """A string that a call returned; ChainError when it returned something else."""
    try:
        # Not strict: old compilers leave something else than zeros behind a text (USDC's own).
        (text,) = decode(["string"], data, strict=False)
    except (DecodingError, OverflowError, UnicodeDecodeError) as exc:
        raise ChainError("a contract did not answer with a text") from exc
    return str(text)


def address_topic(address: str) -> str:
    """An address as it stands in an indexed topic of a log."""
    return "0x" + address_word(address).hex()


def topic_address(topic: str) -> str:
    """The address, lower case, of an indexed topic."""
    return "0x" + topic[-40:].lower()
