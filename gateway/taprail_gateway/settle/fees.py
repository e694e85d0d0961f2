"""What a transaction offers per gas: by the base fee, and by how long it may have to wait. Pure.

A full block raises the base fee by an eighth (EIP-1559), so what waits behind other blocks needs a
max fee that outlives them; what has become too cheap all the same is signed once more with `bumped`
fees (see `stuck`). How much gas a transaction may use is the business of `gas`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from taprail_gateway.settle.errors import FeeCapError

WEI_PER_GWEI: Final = 10**9

_BLOCKS_TO_SPARE: Final = 6
"""Full blocks of strangers that a fee outlives beside our own queue: twice the base fee."""

_MOST_BLOCKS: Final = 48
"""Of rises counted: 1.125^48 is 285-fold, beyond what any cap in its senses allows."""


class Fees(NamedTuple):
    """What a transaction offers per gas (EIP-1559)."""

    max_fee_wei: int
    priority_fee_wei: int


def quote(base_fee_wei: int, priority_fee_wei: int, cap_wei: int, *, blocks_ahead: int = 0) -> Fees:
    """Fees that stay minable while so many full blocks of our own queue go before, and some more.

    At most the cap; FeeCapError when even the next block asks for more.
    """
    if base_fee_wei + priority_fee_wei > cap_wei:
        raise FeeCapError(
            f"the chain asks {_gwei(base_fee_wei + priority_fee_wei)} gwei per gas, "
            f"over the cap of {_gwei(cap_wei)}",
            fix="wait until it falls, or raise max_fee_cap_gwei",
        )
    rises = min(blocks_ahead + _BLOCKS_TO_SPARE, _MOST_BLOCKS)
    highest_base_wei = -(-base_fee_wei * 9**rises // 8**rises)
    return Fees(min(highest_base_wei + priority_fee_wei, cap_wei), priority_fee_wei)


def bumped(old: Fees, wanted: Fees, cap_wei: int) -> Fees | None:
    """Fees at which nodes take a transaction in the place of one that lies in their pool.

    Both rise by an eighth at least, rounded up (geth wants a tenth, others an eighth), or to what
    is wanted now. None when that would exceed the cap: then the old one has to wait.
    """
    fees = Fees(
        max(_raised(old.max_fee_wei), wanted.max_fee_wei),
        max(_raised(old.priority_fee_wei), wanted.priority_fee_wei),
    )
    if fees.max_fee_wei > cap_wei or fees.priority_fee_wei > fees.max_fee_wei:
        return None
    return fees


def _raised(wei: int) -> int:
    # The 1 is for a tip of nothing, which no share of itself would ever raise.
    return max(wei + 1, -(-wei * 9 // 8))


def _gwei(wei: int) -> str:
    return f"{wei / WEI_PER_GWEI:.9g}"
