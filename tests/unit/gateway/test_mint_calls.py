"""Call data for the rewards contract, held against eth_abi; and its logs."""

from __future__ import annotations

import pytest
from eth_utils.crypto import keccak

from taprail_common.payment_state import PaymentState
from taprail_gateway.ledger.mints import Mint
from taprail_gateway.settle.mint_calls import (
    MINTED_TOPIC,
    SKIPPED_TOPIC,
    gas_limit,
    is_minter,
    mint_batch,
    mints_that_fit,
    rewarded,
)
from taprail_gateway.settle.replies import Log
from tests.support.reward_points import MINT_BATCH, call_data, payers, payment_ids

CONTRACT = "0x" + "c0" * 20
PLACE = {"data": "0x", "block_number": 1, "block_hash": "0x" + "0b" * 32, "tx_hash": "0x"}


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_a_batch_is_packed_as_the_abi_says(count: int) -> None:
    ids, to = payment_ids(count), payers(count)
    amounts = [10**12 + number for number in range(count)]
    mints = [
        Mint("0x" + ids[n].hex(), to[n], amounts[n], PaymentState.PENDING, 0, 0, None)
        for n in range(count)
    ]
    assert "0x" + mint_batch(mints).hex() == call_data(MINT_BATCH, ids, to, amounts)


def test_the_question_who_may_mint() -> None:
    (account,) = payers(1)
    assert "0x" + is_minter(account).hex() == call_data("isMinter(address)", account)


def log(*topics: str, address: str = CONTRACT) -> Log:
    return Log(address=address, topics=topics, index=0, **PLACE)  # type: ignore[arg-type]


def test_what_was_minted_or_skipped_is_rewarded() -> None:
    a, b, c, d = ("0x" + each.hex() for each in payment_ids(4))
    logs = [
        log(MINTED_TOPIC, a, "0x" + "00" * 32),
        log(SKIPPED_TOPIC, b),
        log("0x" + keccak(b"Transfer(address,address,uint256)").hex(), c),
        log(MINTED_TOPIC, d, address="0x" + "dd" * 20),
        log(),
    ]
    assert rewarded(CONTRACT, logs) == {a, b}


def test_no_more_mints_than_fit() -> None:
    assert mints_that_fit(50, gas_limit(50)) == 50
    assert mints_that_fit(50, gas_limit(20)) == 20
    assert mints_that_fit(50, 1) == 1
