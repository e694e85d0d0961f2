"""What a node's words about a transaction or a call mean: the only place that reads them.

A refusal is a hint about what to try next, never proof about the money: in every class the nonce
and the stored bytes are kept, and only the chain itself decides what became of a payment. Words
that nobody listed are `ambiguous`: the transaction may be out there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from taprail_common.errors import LinkError, TapRailError


class SendClass(StrEnum):
    """What became of one `eth_sendRawTransaction`, as far as the answer tells."""

    TAKEN = "taken"
    """The node answered with the hash of exactly these bytes."""
    PERMANENT = "permanent"
    """These bytes can never run; a person has to look."""
    WRONG_CHAIN = "wrong_chain"
    """The node is on another chain than the transaction: it says nothing about ours."""
    KNOWN = "known"
    """The node had the bytes already: as good as taken, and no proof that they will be mined."""
    NONCE_LOW = "nonce_low"
    """The nonce is mined, by one of our own attempts or by a stranger: the receipts tell."""
    NONCE_HIGH = "nonce_high"
    """A lower nonce is missing at the node: send the head of the lane first."""
    FUNDS = "funds"
    """The lane's wallet cannot pay for gas: pause until it is topped up."""
    UNDERPRICED = "underpriced"
    """Another transaction with this nonce lives in the pool: wait."""
    FEE_LOW = "fee_low"
    """The fee does not reach what the node wants now: the same bytes again when it has fallen."""
    CAPACITY = "capacity"
    """The node has no room: back off, same bytes."""
    AMBIGUOUS = "ambiguous"
    """Nobody knows: same bytes again."""


class NodeReply(NamedTuple):
    """An error as a node gave it: JSON-RPC code or HTTP status (None: no answer), and its text."""

    code: int | None
    text: str


class _Row(NamedTuple):
    meaning: SendClass
    texts: tuple[str, ...]
    codes: frozenset[int] = frozenset()


# The order decides: a text is tried from the top ("replacement transaction underpriced" holds
# "transaction underpriced"). Texts of geth, erigon, nethermind, besu, reth and anvil, lower case.
# Numbers are compared as codes only, because a text may hold any number.
_TABLE: Final = (
    _Row(
        SendClass.PERMANENT,
        (
            "execution reverted",
            "invalid opcode",
            "intrinsic gas too low",
            "intrinsic gas too high",  # anvil: more than a block holds
            "exceeds block gas limit",
            "oversized data",
            "invalid sender",
            "invalid signature",
        ),
    ),
    # Every transaction of ours names the chain that was checked at start.
    _Row(SendClass.WRONG_CHAIN, ("invalid chain id",)),
    _Row(
        SendClass.KNOWN,
        ("already known", "alreadyknown", "known transaction", "already imported"),
    ),
    _Row(
        SendClass.NONCE_LOW,
        ("nonce too low", "nonce has already been used", "old nonce", "oldnonce", "stale"),
    ),
    _Row(
        SendClass.NONCE_HIGH,
        ("nonce too high", "nonce too far in the future", "gapped nonce", "exceeds next nonce"),
    ),
    _Row(SendClass.FUNDS, ("insufficient funds", "insufficient balance", "overdraft")),
    _Row(SendClass.UNDERPRICED, ("replacement transaction underpriced",)),
    _Row(
        SendClass.FEE_LOW,
        ("transaction underpriced", "max fee per gas less than block base fee", "fee too low"),
    ),
    _Row(
        SendClass.CAPACITY,
        ("txpool is full", "queue full", "account limit", "too many requests"),
        # EIP-1474 "limit exceeded"; RFC 6585 section 4 "Too Many Requests".
        frozenset({-32005, 429}),
    ),
)

IN_POOL: Final = frozenset({SendClass.TAKEN, SendClass.KNOWN})
"""After these the transaction counts as sent."""


def classify(reply: NodeReply) -> SendClass:
    """The class of a node's error; whatever the table does not know is ambiguous."""
    text = reply.text.lower()
    for row in _TABLE:
        if any(known in text for known in row.texts):
            return row.meaning
    for row in _TABLE:
        if reply.code in row.codes:
            return row.meaning
    return SendClass.AMBIGUOUS


class CallClass(StrEnum):
    """What it means that the token refuses an authorization that it was asked to try."""

    EXPIRED = "expired"
    """The time of the trial itself had run out: nothing about the payment."""
    TOKEN_PAUSED = "token_paused"  # noqa: S105 - no password
    """The token carries out nothing at all, for nobody."""
    REFUSED = "refused"
    """This payment would fail."""


class CallRefusal(NamedTuple):
    """Why the token refused; the words are for people."""

    meaning: CallClass
    words: str


NOT_COVERED: Final = "the account's balance does not cover it"
"""The words for a payer that lacks the money."""

# Texts of FiatTokenV2_2 and of its like, lower case.
_REFUSALS: Final = (
    ("authorization is expired", CallRefusal(CallClass.EXPIRED, "its authorization expired")),
    ("pausable: paused", CallRefusal(CallClass.TOKEN_PAUSED, "the token is paused")),
    (
        "exceeds balance",
        CallRefusal(CallClass.REFUSED, NOT_COVERED),
    ),
    (
        "authorization is used",
        CallRefusal(CallClass.REFUSED, "its authorization was used or cancelled"),
    ),
    (
        "invalid signature",
        CallRefusal(CallClass.REFUSED, "the token does not accept the account's signature"),
    ),
    (
        "blacklisted",
        CallRefusal(CallClass.REFUSED, "the token has blocked the account, or the merchant's"),
    ),
)
_SHOWN_CHARS: Final = 120
_CALL_FAILED: Final = ("revert", "out of gas", "outofgas", "opcode", "evm error")


def call_failed(reply: NodeReply) -> bool:
    """Whether a node's error to `eth_call` is the call's own failure, and not the node's."""
    text = reply.text.lower()
    return any(known in text for known in _CALL_FAILED)


def refusal(text: str) -> CallRefusal:
    """What a token's reason means, in words for people; its own where the table has none."""
    lower = text.lower()
    for known, meant in _REFUSALS:
        if known in lower:
            return meant
    shown = "".join(char for char in text[:_SHOWN_CHARS] if char.isprintable())
    words = f"the token refuses it: {shown}" if shown else "the token refuses it without a reason"
    return CallRefusal(CallClass.REFUSED, words)


class ChainError(LinkError):
    """A node did not answer, or not with what was asked for: nothing may be concluded from it."""

    code = "chain"

    def __init__(self, message: str, *, fix: str = "", reply: NodeReply | None = None) -> None:
        super().__init__(message, fix=fix)
        self.reply = reply or NodeReply(None, message)


class WrongChainError(ChainError):
    """A node is on another chain than the one that was configured."""

    code = "wrong_chain"


class TokenPausedError(TapRailError):
    """The token carries out nothing for anybody: nothing is sent until its issuer lets it."""

    code = "token_paused"
    retryable = True


class FeeCapError(TapRailError):
    """The chain asks for more per gas than the operator allows: nothing new is sent until then."""

    code = "fee_cap"
    retryable = True
