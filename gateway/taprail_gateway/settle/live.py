"""The settlement settings that are in force now; the loops ask at each use and keep no copy."""

from __future__ import annotations

from dataclasses import dataclass

from taprail_gateway.settle.settings import SettlementSettings


@dataclass
class LiveSettings:
    """What the file says, until an operator says otherwise."""

    now: SettlementSettings
