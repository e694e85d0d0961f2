"""Reads what a token really did from the chain's logs: the judge of every end-to-end test.

Answers for decoding `Transfer` and the `AuthorizationUsed` beside it. Written from ERC-20 and
EIP-3009 alone, so that a mistake in the gateway's own reading of logs cannot repeat itself here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from taprail_hwsim import abi
from taprail_hwsim.rpc import JsonRpc

# ERC-20: keccak256 of "Transfer(address,address,uint256)"
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
# EIP-3009: keccak256 of "AuthorizationUsed(address,bytes32)"
AUTHORIZATION_USED_TOPIC = "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5"
# A full block holds some 1,300 logs of ours (600 bytes each): a page stays under 20 MB.
BLOCKS_PER_PAGE = 25


@dataclass(frozen=True)
class Transfer:
    """One `Transfer` log. Addresses and hashes in lower-case hex; a mint's sender is zero.

    `nonce` is the EIP-3009 nonce that moved the money, or None if no authorization did.
    """

    sender: str
    recipient: str
    amount_units: int
    nonce: str | None
    block_number: int
    transaction_hash: str
    log_index: int


def read_transfers(node: JsonRpc, token: str, from_block: int) -> Iterator[Transfer]:
    """Every transfer of the token from a block up to the head of this moment, in chain order."""
    head = int(node.call("eth_blockNumber"), 16)
    for first in range(from_block, head + 1, BLOCKS_PER_PAGE):
        last = min(first + BLOCKS_PER_PAGE - 1, head)
        wanted = {
            "address": token,
            "topics": [[TRANSFER_TOPIC, AUTHORIZATION_USED_TOPIC]],
            "fromBlock": hex(first),
            "toBlock": hex(last),
        }
        yield from decode_transfers(node.call("eth_getLogs", wanted))


def decode_transfers(logs: Iterable[dict[str, Any]]) -> Iterator[Transfer]:
    """Transfers in `eth_getLogs` rows of one token, each with the authorization just before it."""
    before: dict[str, Any] | None = None
    for log in logs:
        if log["topics"][0] == TRANSFER_TOPIC:
            yield _decode(log, before)
        before = log


def _decode(log: dict[str, Any], before: dict[str, Any] | None) -> Transfer:
    _, sender, recipient = log["topics"]
    return Transfer(
        sender=abi.decode_address(sender),
        recipient=abi.decode_address(recipient),
        amount_units=abi.decode_uint(log["data"]),
        nonce=_nonce_of(log, before),
        block_number=int(log["blockNumber"], 16),
        transaction_hash=log["transactionHash"],
        log_index=int(log["logIndex"], 16),
    )


def _nonce_of(transfer: dict[str, Any], before: dict[str, Any] | None) -> str | None:
    """EIP-3009 tokens log `AuthorizationUsed`, then at once the transfer that it allowed."""
    if before is None or before["topics"][0] != AUTHORIZATION_USED_TOPIC:
        return None
    _, authorizer, nonce = before["topics"]
    is_same_call = (
        before["transactionHash"] == transfer["transactionHash"]
        and int(before["logIndex"], 16) + 1 == int(transfer["logIndex"], 16)
        and authorizer == transfer["topics"][1]
    )
    return nonce if is_same_call else None
