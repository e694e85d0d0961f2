"""Transactions are offered in requests that a node takes, whole and in their order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taprail_gateway.settle.broadcast import MAX_BATCH_RAW_BYTES, StoredTransaction, batches
from taprail_gateway.settle.chain import MAX_BATCH
from taprail_gateway.settle.signer import SignedTransaction


def transactions(sizes: list[int]) -> list[StoredTransaction]:
    return [
        StoredTransaction(nonce, nonce, SignedTransaction(f"0x{nonce:064x}", bytes(size)))
        for nonce, size in enumerate(sizes)
    ]


@given(st.lists(st.sampled_from([1, 500, 28_000, 130_000, MAX_BATCH_RAW_BYTES + 1]), max_size=200))
def test_batches_hold_all_in_order_within_both_bounds(sizes: list[int]) -> None:
    given_ones = transactions(sizes)
    cut = list(batches(given_ones))
    assert [item for batch in cut for item in batch] == given_ones
    for batch in cut:
        assert 0 < len(batch) <= MAX_BATCH
        raw_bytes = sum(len(item.signed.raw) for item in batch)
        assert raw_bytes <= MAX_BATCH_RAW_BYTES or len(batch) == 1


def test_no_request_is_cut_without_need() -> None:
    assert len(list(batches(transactions([200] * MAX_BATCH)))) == 1
    assert len(list(batches(transactions([28_000] * 14)))) == 1
