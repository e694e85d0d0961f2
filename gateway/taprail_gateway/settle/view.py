"""What one pass of the confirm loop stands on: its blocks, and the lanes that it may judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from taprail_gateway.ledger.leases import Lease
from taprail_gateway.ledger.queries import Lane
from taprail_gateway.settle.replies import Block


@dataclass(frozen=True, slots=True)
class HeldLane:
    """A lane of ours, and how many of its transactions are mined."""

    lane: Lane
    lease: Lease
    mined_at_head: int
    mined: int
    """At the confirmed block."""


@dataclass(frozen=True, slots=True)
class View:
    """The newest block, the newest that counts as final, and the lanes as both leave them."""

    head: Block
    block: Block
    lanes: Sequence[HeldLane]
