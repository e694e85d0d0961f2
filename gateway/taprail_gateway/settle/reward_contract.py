"""RewardPoints as a merchant deploys it: the code that makes the contract, with its arguments.

The compiled code is the committed artifact of `gateway/contracts`. What is said to a contract that
is there is the business of `mint_calls`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from taprail_common.eip3009 import address_word, uint_word
from taprail_common.errors import InputError, OperatorError
from taprail_common.hashing import keccak256
from taprail_gateway.settle.signer import rlp_encode

MAX_DECIMALS: Final = 6
"""The contract's own: amounts in the ledger are 64-bit integers."""

_LONGEST_NAME: Final = 64
_LONGEST_SYMBOL: Final = 11
"""Characters; some wallets refuse longer ones."""

_FILE: Final = Path("contracts", "artifacts", "RewardPoints.json")
_PACKAGE: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class NewPoints:
    """What the contract is told when it is made; InputError for what no wallet could show."""

    name: str
    symbol: str
    decimals: int
    owner: str

    def __post_init__(self) -> None:
        for field, longest in (("name", _LONGEST_NAME), ("symbol", _LONGEST_SYMBOL)):
            text: str = getattr(self, field)
            if not (text.strip() and text.isprintable() and len(text) <= longest):
                raise InputError(field, f"must be 1 to {longest} printable characters")
        if not 0 <= self.decimals <= MAX_DECIMALS:
            raise InputError("decimals", f"must be from 0 to {MAX_DECIMALS}")


def creation_code(points: NewPoints) -> bytes:
    """The data of the transaction that deploys it; raises OperatorError when it is not installed.

    Solidity's ABI: the constructor's (string, string, uint8, address) behind the code.
    """
    name, symbol = _text(points.name), _text(points.symbol)
    heads_bytes = 4 * 32
    heads = (
        uint_word(heads_bytes),
        uint_word(heads_bytes + len(name)),
        uint_word(points.decimals),
        address_word(points.owner),
    )
    return b"".join((_code(), *heads, name, symbol))


def contract_address(deployer: str, nonce: int) -> str:
    """Where the contract comes to lie that an account makes with this nonce (yellow paper, 7)."""
    made = keccak256(rlp_encode([bytes.fromhex(deployer.removeprefix("0x")), nonce]))
    return "0x" + made[-20:].hex()


def _text(text: str) -> bytes:
    raw = text.encode()
    return uint_word(len(raw)) + raw.ljust(-(-len(raw) // 32) * 32, b"\0")


def _code() -> bytes:
    # A wheel has it inside the package; in a checkout it lies beside, where its source is.
    for folder in (_PACKAGE, _PACKAGE.parent):
        path = folder / _FILE
        if path.is_file():
            code: str = json.loads(path.read_text())["bytecode"]
            return bytes.fromhex(code.removeprefix("0x"))
    raise OperatorError("the compiled RewardPoints is not installed", fix="reinstall taprail")
