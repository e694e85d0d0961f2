"""What the chain asks per gas now: from the fee history of its last blocks, read once per block.

A node that has none, or gives one that cannot be right, costs nothing but the tip of the market:
the head's own base fee and the operator's tip do for a quote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from taprail_gateway.settle import fees, replies
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.errors import ChainError
from taprail_gateway.settle.fees import Fees
from taprail_gateway.settle.live import LiveSettings
from taprail_gateway.settle.replies import Block

_BLOCKS: Final = 10
_PERCENTILE: Final = 30
"""Of the gas of a block: what paid this tip got in with most of its block behind it."""

_FULL: Final = 0.95
"""Where there is room left, any tip does; only full blocks tell what one costs."""

_MOST_TIMES: Final = 10
"""The operator's tip, at most: a few who overpay, or a node that lies, must not set our price."""

_log = structlog.get_logger("settle.fees")


@dataclass(frozen=True, slots=True)
class FeeHistory:
    """The part of `eth_feeHistory` that is used."""

    next_base_fee_wei: int
    full_blocks_tips_wei: Sequence[int]


class FeeWatch:
    """Quotes for one gateway; all lanes share the one question per block."""

    def __init__(self, chain: Chain, live: LiveSettings) -> None:
        self._chain = chain
        self._live = live
        self._block_hash = ""
        self._history: FeeHistory | None = None
        self._is_missing = False

    async def quote(self, head: Block, blocks_ahead: int = 0) -> Fees:
        """Fees for what goes out now, behind so many full blocks of our own; or FeeCapError."""
        settings = self._live.now
        history = await self._history_at(head)
        base_wei, tip_wei = head.base_fee_wei, settings.priority_fee_wei
        if history is not None:
            base_wei = max(base_wei, history.next_base_fee_wei)
            tip_wei = market_tip(history.full_blocks_tips_wei, tip_wei)
        cap_wei = settings.max_fee_cap_wei
        tip_wei = max(min(tip_wei, cap_wei - base_wei), settings.priority_fee_wei)
        return fees.quote(base_wei, tip_wei, cap_wei, blocks_ahead=blocks_ahead)

    async def _history_at(self, head: Block) -> FeeHistory | None:
        if head.block_hash != self._block_hash:
            self._history = await self._ask(head)
            self._block_hash = head.block_hash
        return self._history

    async def _ask(self, head: Block) -> FeeHistory | None:
        asked = [("eth_feeHistory", [hex(_BLOCKS), hex(head.number), [_PERCENTILE]])]
        try:
            (history,) = await self._chain.read(asked, partial(read_history, head=head))
        except ChainError as exc:
            if not self._is_missing:
                _log.warning("settle.no_fee_history", reason=str(exc))
            self._is_missing = True
            return None
        self._is_missing = False
        return history


def market_tip(full_blocks_tips_wei: Sequence[int], own_wei: int) -> int:
    """The operator's tip, or what full blocks have lately been paid (their median), bounded."""
    if not full_blocks_tips_wei:
        return own_wei
    median_wei = sorted(full_blocks_tips_wei)[len(full_blocks_tips_wei) // 2]
    return min(max(own_wei, median_wei), _MOST_TIMES * own_wei)


def read_history(value: object, head: Block) -> FeeHistory:
    """A fee history up to this head, the next block's base fee included; or ChainError."""
    if not isinstance(value, dict):
        raise ChainError("the node gave something else than a fee history")
    base_fees, ratios = _list(value, "baseFeePerGas"), _list(value, "gasUsedRatio")
    rewards = _list(value, "reward")
    if len(base_fees) != len(ratios) + 1 or len(rewards) != len(ratios):
        raise ChainError("the node gave a fee history whose lists do not go together")
    next_wei = replies.quantity(base_fees[-1])
    # EIP-1559: an eighth more at most.
    if next_wei > head.base_fee_wei * 9 // 8 + 1:
        raise ChainError("the node gave a base fee that cannot follow the head's")
    tips = [
        _first(reward) for reward, ratio in zip(rewards, ratios, strict=True) if _is_full(ratio)
    ]
    return FeeHistory(next_wei, tips)


def _list(value: dict[object, object], name: str) -> list[object]:
    found = value.get(name)
    if not isinstance(found, list) or len(found) > _BLOCKS + 1:
        raise ChainError(f"the node gave a fee history without {name}")
    return found


def _is_full(ratio: object) -> bool:
    if not isinstance(ratio, int | float):
        raise ChainError("the node gave something else than the share of a block's gas")
    return ratio >= _FULL


def _first(reward: object) -> int:
    if not isinstance(reward, list) or not reward:
        raise ChainError("the node gave a fee history without the tips that it was asked for")
    return replies.quantity(reward[0])
