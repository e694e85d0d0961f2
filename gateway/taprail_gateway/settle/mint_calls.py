"""What is said to the rewards contract, what its logs say, and what that costs in gas. Pure.

The contract is RewardPoints (`gateway/contracts`). Its selectors and topics are the Solidity ABI's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from taprail_common.eip3009 import address_word, uint_word
from taprail_common.hashing import keccak256
from taprail_gateway.ledger.mints import Mint
from taprail_gateway.settle.replies import Log

_MINT_BATCH: Final = keccak256(b"mintBatch(bytes32[],address[],uint256[])")[:4]
_IS_MINTER: Final = keccak256(b"isMinter(address)")[:4]
_SET_MINTER: Final = keccak256(b"setMinter(address,bool)")[:4]

OWNER: Final = keccak256(b"owner()")[:4]
"""Call data: whose contract it is."""

MINTED_TOPIC: Final = "0x" + keccak256(b"Minted(bytes32,address,uint256)").hex()
SKIPPED_TOPIC: Final = "0x" + keccak256(b"Skipped(bytes32)").hex()

# Measured with recipients who never had any points, the dearest case: 97 k for one, 546 k for ten,
# 2,542 k for fifty; so 47.4 k and 49.9 k each. About a tenth more, because too little loses all.
_BATCH_BASE_GAS: Final = 55_000
_MINT_GAS: Final = 54_000


def mint_batch(mints: Sequence[Mint]) -> bytes:
    """Call data that mints all of these; what was minted before is skipped by the contract."""
    columns = (
        [bytes.fromhex(mint.payment_id.removeprefix("0x")) for mint in mints],
        [address_word(mint.recipient) for mint in mints],
        [uint_word(mint.amount_units) for mint in mints],
    )
    # Three words that say where each array begins; an array is its length and its words.
    array_bytes = 32 * (1 + len(mints))
    heads = [uint_word(96 + position * array_bytes) for position in range(len(columns))]
    arrays = [uint_word(len(mints)) + b"".join(words) for words in columns]
    return b"".join((_MINT_BATCH, *heads, *arrays))


def is_minter(address: str) -> bytes:
    """Call data: whether an address may mint."""
    return _IS_MINTER + address_word(address)


def set_minter(address: str) -> bytes:
    """Call data of the owner: let an address mint."""
    return _SET_MINTER + address_word(address) + uint_word(1)


def gas_limit(mints: int) -> int:
    """Gas limit of a transaction with so many mints; what is not used is given back."""
    return _BATCH_BASE_GAS + _MINT_GAS * mints


def gas_each(mints: int) -> int:
    """About what one of so many mints in a transaction uses."""
    return gas_limit(mints) // mints


def mints_that_fit(wanted: int, room_gas: int) -> int:
    """How many of the wanted mints a transaction with so much gas may hold."""
    return max(1, min(wanted, (room_gas - _BATCH_BASE_GAS) // _MINT_GAS))


def rewarded(contract: str, logs: Iterable[Log]) -> set[str]:
    """The payments that these logs of the contract call rewarded: now, or skipped as before."""
    return {
        log.topics[1]
        for log in logs
        if log.address == contract
        and len(log.topics) > 1
        and log.topics[0] in {MINTED_TOPIC, SKIPPED_TOPIC}
    }
