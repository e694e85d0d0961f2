"""The little of Solidity's ABI that the dev chain speaks, and nothing more.

Written from the ABI specification and kept apart from the codec of the gateway, which it helps to
judge. Types: address, bool, bytes32, any uint, string, bytes, and `aggregate3`'s array.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from Crypto.Hash import keccak

WORD_BYTES = 32
ADDRESS_BYTES = 20

Value = int | str | bytes


def keccak256(data: bytes) -> bytes:
    """Ethereum's hash: Keccak before it became SHA-3."""
    return keccak.new(digest_bits=256, data=data).digest()


def encode_call(signature: str, *values: Value) -> str:
    """Call data in 0x hex of e.g. `encode_call("mint(address,uint256)", address, 5)`."""
    types = signature[signature.index("(") + 1 : -1]
    body = encode_values(types.split(",") if types else [], values)
    return "0x" + (keccak256(signature.encode())[:4] + body).hex()


def encode_values(types: Sequence[str], values: Sequence[Value]) -> bytes:
    """Values as the arguments of a call or a constructor: static words, then what they point at."""
    heads: list[bytes] = []
    tail = b""
    for kind, value in zip(types, values, strict=True):
        if kind in ("string", "bytes"):
            heads.append(_word(len(types) * WORD_BYTES + len(tail)))
            tail += _packed(value)
        else:
            heads.append(_static(kind, value))
    return b"".join(heads) + tail


def decode_uint(result: str) -> int:
    """The number in a result of one word."""
    word = _bytes(result)
    if len(word) != WORD_BYTES:
        raise ValueError(f"expected one word, got {len(word)} bytes")
    return int.from_bytes(word)


def decode_string(result: str) -> str:
    """The text in a result that is one string."""
    return _dynamic(_bytes(result), 0).decode()


def decode_address(word: str) -> str:
    """The address in a word or an indexed topic, in lower-case hex."""
    data = _bytes(word)
    if len(data) != WORD_BYTES or any(data[: WORD_BYTES - ADDRESS_BYTES]):
        raise ValueError(f"not an address: {word}")
    return "0x" + data[-ADDRESS_BYTES:].hex()


def address_topic(address: str) -> str:
    """An address as an indexed topic."""
    return "0x" + _static("address", address).hex()


@dataclass(frozen=True)
class CallResult:
    """What became of one call in a batch; `return_data` holds the revert's bytes if it failed."""

    success: bool
    return_data: bytes


def encode_aggregate3(calls: Sequence[tuple[str, str]], *, allow_failure: bool = True) -> str:
    """Call data of Multicall3's aggregate3 for (target, call data) pairs."""
    tuples = [
        _static("address", target)
        + _static("bool", int(allow_failure))
        + _word(3 * WORD_BYTES)
        + _packed(_bytes(data))
        for target, data in calls
    ]
    offsets, at = b"", len(tuples) * WORD_BYTES
    for item in tuples:
        offsets += _word(at)
        at += len(item)
    selector = keccak256(b"aggregate3((address,bool,bytes)[])")[:4]
    body = _word(WORD_BYTES) + _word(len(tuples)) + offsets + b"".join(tuples)
    return "0x" + (selector + body).hex()


def decode_aggregate3(result: str) -> list[CallResult]:
    """The results that aggregate3 returned."""
    data = _bytes(result)
    start = _uint_at(data, 0)
    count = _uint_at(data, start)
    first = start + WORD_BYTES
    results = []
    for index in range(count):
        at = first + _uint_at(data, first + index * WORD_BYTES)
        returned = _dynamic(data[at:], WORD_BYTES)
        results.append(CallResult(bool(_uint_at(data, at)), returned))
    return results


def decode_revert_reason(data: bytes) -> str | None:
    """The text of `revert(reason)`, or None if the bytes are no `Error(string)`."""
    selector = keccak256(b"Error(string)")[:4]
    return _dynamic(data[4:], 0).decode() if data[:4] == selector else None


def _static(kind: str, value: Value) -> bytes:
    if kind.startswith("uint") or kind == "bool":
        if not isinstance(value, int):
            raise TypeError(f"{kind} takes an int, not {value!r}")
        return _word(value)
    size = {"address": ADDRESS_BYTES, "bytes32": WORD_BYTES}.get(kind)
    if size is None:
        raise ValueError(f"this codec does not know {kind}")
    data = value if isinstance(value, bytes) else _bytes(str(value))
    if len(data) != size:
        raise ValueError(f"{kind} takes {size} bytes, not {len(data)}")
    return data.rjust(WORD_BYTES, b"\0")


def _packed(value: Value) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    if not isinstance(data, bytes):
        raise TypeError(f"string and bytes take str and bytes, not {value!r}")
    return _word(len(data)) + data + b"\0" * (-len(data) % WORD_BYTES)


def _dynamic(data: bytes, head_at: int) -> bytes:
    at = _uint_at(data, head_at)
    size = _uint_at(data, at)
    found = data[at + WORD_BYTES : at + WORD_BYTES + size]
    if len(found) != size:
        raise ValueError("the data ends before its own length")
    return found


def _uint_at(data: bytes, at: int) -> int:
    word = data[at : at + WORD_BYTES]
    if len(word) != WORD_BYTES:
        raise ValueError("the data ends before the word")
    return int.from_bytes(word)


def _word(number: int) -> bytes:
    return number.to_bytes(WORD_BYTES)


def _bytes(text: str) -> bytes:
    if not text.startswith("0x"):
        raise ValueError(f"not 0x hex: {text[:10]!r}")
    return bytes.fromhex(text[2:])
