"""What nodes say, and what it means: their words, and the rule for words that nobody listed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taprail_gateway.settle.errors import IN_POOL, NodeReply, SendClass, classify

SAID = [
    # permanent
    (3, "execution reverted: authorization is expired", SendClass.PERMANENT),
    (-32000, "invalid opcode: INVALID", SendClass.PERMANENT),
    (-32000, "intrinsic gas too low: gas 20000, minimum needed 21000", SendClass.PERMANENT),
    (-32000, "exceeds block gas limit", SendClass.PERMANENT),
    (-32003, "intrinsic gas too high -- tx.gas_limit > env.block.gas_limit", SendClass.PERMANENT),
    (-32000, "oversized data: transaction size 140000, limit 131072", SendClass.PERMANENT),
    (-32000, "invalid sender", SendClass.PERMANENT),
    (-32003, "invalid chain id for signer", SendClass.WRONG_CHAIN),
    # known
    (-32000, "already known", SendClass.KNOWN),
    (-32010, "AlreadyKnown", SendClass.KNOWN),
    (-32000, "Known transaction", SendClass.KNOWN),
    (-32003, "transaction already imported", SendClass.KNOWN),
    # nonce
    (-32003, "nonce too low", SendClass.NONCE_LOW),
    (-32000, "nonce too low: next nonce 9, tx nonce 8", SendClass.NONCE_LOW),
    (-32010, "OldNonce, Current nonce: 4, nonce of rejected tx: 3", SendClass.NONCE_LOW),
    (-32000, "nonce too high", SendClass.NONCE_HIGH),
    (-32000, "gapped nonce: transaction nonce is 7", SendClass.NONCE_HIGH),
    (-32000, "Transaction nonce is too far: exceeds next nonce", SendClass.NONCE_HIGH),
    # money
    (-32003, "Insufficient funds for gas * price + value", SendClass.FUNDS),
    (-32000, "insufficient funds for gas * price + value: balance 0, tx cost 1", SendClass.FUNDS),
    (-32000, "overdraft", SendClass.FUNDS),
    # fees: the longer text first, because it holds the shorter
    (-32003, "replacement transaction underpriced", SendClass.UNDERPRICED),
    (-32000, "transaction underpriced: tip needed 25, tip permitted 1", SendClass.FEE_LOW),
    (-32003, "max fee per gas less than block base fee", SendClass.FEE_LOW),
    (-32000, "FeeTooLow, fee too low", SendClass.FEE_LOW),
    # capacity, by words or by code alone
    (-32000, "txpool is full", SendClass.CAPACITY),
    (-32000, "account limit reached", SendClass.CAPACITY),
    (-32005, "daily request count exceeded", SendClass.CAPACITY),
    (429, "HTTP 429", SendClass.CAPACITY),
    # anything else: it may be out there
    (None, "TimeoutError", SendClass.AMBIGUOUS),
    (None, "ServerDisconnectedError", SendClass.AMBIGUOUS),
    (408, "HTTP 408", SendClass.AMBIGUOUS),
    (502, "HTTP 502", SendClass.AMBIGUOUS),
    (503, "HTTP 503", SendClass.AMBIGUOUS),
    (-32603, "internal error", SendClass.AMBIGUOUS),
    (-32602, "Failed to decode transaction", SendClass.AMBIGUOUS),
    (-32000, "", SendClass.AMBIGUOUS),
]


@pytest.mark.parametrize(("code", "text", "meaning"), SAID)
def test_a_nodes_words_have_one_meaning(code: int | None, text: str, meaning: SendClass) -> None:
    assert classify(NodeReply(code, text)) is meaning
    assert classify(NodeReply(code, text.upper())) is meaning


@given(st.integers(), st.text(st.characters(codec="ascii", categories=["Nd", "Zs", "Po"])))
def test_numbers_and_noise_prove_nothing(number: int, text: str) -> None:
    """A number inside a text, be it 429 or a block's, is no code."""
    assert classify(NodeReply(None, f"{text}{number}")) is SendClass.AMBIGUOUS


def test_only_a_hash_or_a_known_transaction_counts_as_sent() -> None:
    assert {SendClass.TAKEN, SendClass.KNOWN} == IN_POOL
    assert SendClass.TAKEN not in {classify(NodeReply(code, text)) for code, text, _ in SAID}
