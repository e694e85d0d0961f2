"""Which accounts have code: one `eth_call` for all of them, of a program that is never deployed.

An account with code may do as it likes when a signature of its is checked: burn the gas of a whole
batch, or say no. `eth_call` without an address runs what it is given as the code of a contract in
the making and gives back what that returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taprail_common.eip3009 import address_word
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.node import Call

MAX_ACCOUNTS: Final = 500
"""In one call: EIP-170 bounds what it returns to 768 words, EIP-3860 what it is given to 1,500."""

# Its accounts follow the program in words of 32 bytes, from byte 0x29 on. Each word is copied to
# memory at its place, and the size of that account's code is written over it.
_PROGRAM: Final = bytes.fromhex(
    "6029"  # 00 PUSH1 0x29      place of the first account: p
    "5b"  # 02 JUMPDEST          p
    "80"  # 03 DUP1              p p
    "38"  # 04 CODESIZE          p p end
    "14"  # 05 EQ                p is-end
    "6021"  # 06 PUSH1 0x21
    "57"  # 08 JUMPI             p                   to 0x21 behind the last one
    "6020"  # 09 PUSH1 0x20      p 32
    "81"  # 0b DUP2              p 32 p
    "6029"  # 0c PUSH1 0x29      p 32 p 0x29
    "81"  # 0e DUP2              p 32 p 0x29 p
    "03"  # 0f SUB               p 32 p m            m = p - 0x29
    "39"  # 10 CODECOPY          p                   memory[m] = the account
    "80"  # 11 DUP1              p p
    "6029"  # 12 PUSH1 0x29      p p 0x29
    "90"  # 14 SWAP1             p 0x29 p
    "03"  # 15 SUB               p m
    "80"  # 16 DUP1              p m m
    "51"  # 17 MLOAD             p m account
    "3b"  # 18 EXTCODESIZE       p m size
    "90"  # 19 SWAP1             p size m
    "52"  # 1a MSTORE            p                   memory[m] = size
    "6020"  # 1b PUSH1 0x20
    "01"  # 1d ADD               p + 32
    "6002"  # 1e PUSH1 0x02
    "56"  # 20 JUMP
    "5b"  # 21 JUMPDEST          end
    "6029"  # 22 PUSH1 0x29      end 0x29
    "90"  # 24 SWAP1             0x29 end
    "03"  # 25 SUB               length
    "6000"  # 26 PUSH1 0x00
    "f3"  # 28 RETURN
)


def question(accounts: Sequence[str], block: str) -> Call:
    """The call that asks for the size of each account's code; ValueError for too many."""
    if len(accounts) > MAX_ACCOUNTS:
        raise ValueError(f"at most {MAX_ACCOUNTS} accounts a call")
    program = _PROGRAM + b"".join(map(address_word, accounts))
    return ("eth_call", [{"data": "0x" + program.hex()}, block])


def with_code(accounts: Sequence[str], answer: bytes) -> frozenset[str]:
    """Those of the accounts that have code; ChainError unless there is a size for each."""
    if len(answer) != 32 * len(accounts):
        raise ChainError("the node's answer is no list of code sizes")
    words = (answer[at : at + 32] for at in range(0, len(answer), 32))
    return frozenset(account for account, word in zip(accounts, words, strict=True) if any(word))
