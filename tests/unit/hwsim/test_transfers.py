"""The judge's decoder, on rows as a node gives them."""

from typing import Any

import pytest

from taprail_hwsim.transfers import (
    AUTHORIZATION_USED_TOPIC,
    TRANSFER_TOPIC,
    Transfer,
    decode_transfers,
)

ALICE, BOB = "0x" + "a1" * 20, "0x" + "b0" * 20
NONCE = "0x" + "5e" * 32


def topic(address: str) -> str:
    return "0x" + "00" * 12 + address[2:]


def row(index: int, topics: list[str], *, data: str = "0x", transaction: int = 1) -> dict[str, Any]:
    return {
        "topics": topics,
        "data": data,
        "blockNumber": "0x10",
        "transactionHash": f"0x{transaction:064x}",
        "logIndex": hex(index),
    }


def used(index: int, authorizer: str = ALICE, *, transaction: int = 1) -> dict[str, Any]:
    topics = [AUTHORIZATION_USED_TOPIC, topic(authorizer), NONCE]
    return row(index, topics, transaction=transaction)


def moved(index: int, *, transaction: int = 1) -> dict[str, Any]:
    topics = [TRANSFER_TOPIC, topic(ALICE), topic(BOB)]
    return row(index, topics, data=f"0x{1_500_000:064x}", transaction=transaction)


def test_a_transfer_with_its_authorization() -> None:
    assert list(decode_transfers([used(4), moved(5)])) == [
        Transfer(
            sender=ALICE,
            recipient=BOB,
            amount_units=1_500_000,
            nonce=NONCE,
            block_number=16,
            transaction_hash=f"0x{1:064x}",
            log_index=5,
        )
    ]


@pytest.mark.parametrize(
    "logs",
    [
        [moved(0)],
        [used(3), moved(5)],
        [used(5), moved(4)],
        [used(4, BOB), moved(5)],
        [used(4, transaction=2), moved(5)],
        [moved(5), used(6)],
    ],
    ids=["none", "gap", "after", "another payer's", "another transaction's", "last"],
)
def test_an_authorization_that_is_not_the_transfers_own(logs: list[dict[str, Any]]) -> None:
    assert [transfer.nonce for transfer in decode_transfers(logs)] == [None]


def test_one_authorization_covers_one_transfer() -> None:
    found = decode_transfers([used(0), moved(1), moved(2)])
    assert [transfer.nonce for transfer in found] == [NONCE, None]
