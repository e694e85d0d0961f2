"""Faults of a node's pool: what becomes of the transactions that are sent to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import rlp
from coincurve import PublicKey

from taprail_common.hashing import keccak256
from taprail_hwsim.rpc_proxy.exchange import Call, Exchange, Fault

SEND: Final = ("eth_sendRawTransaction",)
_REMEMBERED: Final = 10_000
# EIP-1559: 0x02 || rlp([chain id, nonce, priority fee, max fee, gas limit, destination, amount,
# data, access list, y parity, r, s]); what is signed is the same without the last three.
_TYPE_1559: Final = b"\x02"
_SIGNED_FIELDS: Final = 9
# geth, core/txpool/legacypool, DefaultConfig.PriceBump: percent that a replacement must add.
_PRICE_BUMP: Final = 10


class Sent(NamedTuple):
    """What a raw transaction says of itself."""

    tx_hash: str
    sender: str
    nonce: int
    max_fee_wei: int
    priority_fee_wei: int


def read_raw(call: Call) -> Sent | None:
    """Read an EIP-1559 transaction; None for anything else, which a node may judge by itself.

    Not by eth_account, whose import raises the process's recursion limit far beyond its stack.
    """
    try:
        raw = bytes.fromhex(str(call.params[0]).removeprefix("0x"))
        if raw[:1] != _TYPE_1559:
            return None
        fields = rlp.decode(raw[1:])
        signed, (parity, r, s) = fields[:_SIGNED_FIELDS], fields[_SIGNED_FIELDS:]
        signature = r.rjust(32, b"\0") + s.rjust(32, b"\0") + (parity or b"\0")
        digest = keccak256(_TYPE_1559 + rlp.encode(signed))
        public_key = PublicKey.from_signature_and_message(signature, digest, hasher=None)
        nonce, priority_fee_wei, max_fee_wei = (int.from_bytes(item) for item in signed[1:4])
    except (ValueError, IndexError, TypeError, AttributeError, rlp.DecodingError):
        return None
    address = keccak256(public_key.format(compressed=False)[1:])[-20:]
    return Sent(
        "0x" + keccak256(raw).hex(), "0x" + address.hex(), nonce, max_fee_wei, priority_fee_wei
    )


class _SendFault(Fault):
    methods = SEND
    is_per_call = True

    def wants(self, call: Call) -> bool:
        return read_raw(call) is not None


@dataclass
class AcceptedLost(_SendFault):
    """The node says yes to a transaction and forgets it."""

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        for call in calls:
            if (sent := read_raw(call)) is not None:
                call.give(sent.tx_hash)


@dataclass
class StrictNonce(_SendFault):
    """A node that takes a nonce only when all lower ones are there: `nonce too high`."""

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        next_nonces: dict[str, int] = {}
        for call in calls:
            sent = read_raw(call)
            if sent is None:
                continue
            if sent.sender not in next_nonces:
                count = await exchange.ask("eth_getTransactionCount", sent.sender, "pending")
                next_nonces[sent.sender] = int(count or "0x0", 16)
            expected = next_nonces[sent.sender]
            if sent.nonce > expected:  # geth's own words, core.ErrNonceTooHigh
                state = f"address {sent.sender}, tx: {sent.nonce} state: {expected}"
                call.refuse(-32000, f"nonce too high: {state}")
            elif sent.nonce == expected:
                next_nonces[sent.sender] += 1


@dataclass
class BumpRule(_SendFault):
    """geth's rule: a replacement must offer at least 10 % more in both fees."""

    _first: OrderedDict[tuple[str, int], Sent] = field(
        default_factory=OrderedDict, init=False, repr=False
    )

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        for call in calls:
            sent = read_raw(call)
            older = self._first.get((sent.sender, sent.nonce)) if sent else None
            if sent is None or older is None or older.tx_hash == sent.tx_hash:
                continue
            waiting = await exchange.ask("eth_getTransactionByHash", older.tx_hash)
            is_in_pool = isinstance(waiting, dict) and waiting.get("blockHash") is None
            if is_in_pool and not _replaces(sent, older):
                call.refuse(-32000, "replacement transaction underpriced")

    async def after(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        for call in calls:
            sent = read_raw(call)
            if sent is None or call.result is None:
                continue
            self._first[sent.sender, sent.nonce] = sent
            while len(self._first) > _REMEMBERED:
                self._first.popitem(last=False)


def _replaces(new: Sent, old: Sent) -> bool:
    return all(
        100 * fee >= (100 + _PRICE_BUMP) * before
        for fee, before in (
            (new.max_fee_wei, old.max_fee_wei),
            (new.priority_fee_wei, old.priority_fee_wei),
        )
    )
