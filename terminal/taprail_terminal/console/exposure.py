"""What is sold without the gateway, for a technician: what may be, what waits, and what was lost.

Answers for putting it into words only; the figures are those of `offline_desk` and the outbox.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taprail_common.clock import rfc3339
from taprail_common.money import format_amount
from taprail_common.operator_words import what_to_do
from taprail_terminal.config import TerminalConfig
from taprail_terminal.console.answers import EXIT_NOT_OK, EXIT_OK, CommandResult, listed, table
from taprail_terminal.console.desk import Desk


async def show(desk: Desk, _args: Sequence[str]) -> CommandResult:
    """The policy and the exposure, above the sales that were declined later."""
    told = desk.offline.status()
    losses = [
        {
            "request": row.request_id,
            "amount": _sum(desk.config, row.amount_units),
            "takenAt": rfc3339(row.stored_at_ms),
        }
        for row in await desk.outbox.lost()
    ]
    facts = {**_limits(desk.config, told["policy"]), **brief(desk)}
    text = "\n".join((listed(facts), "", table(losses, "nothing was lost")))
    return CommandResult(EXIT_NOT_OK if losses else EXIT_OK, text, {**told, "losses": losses})


def brief(desk: Desk) -> dict[str, Any]:
    """The same in a few lines, for the overview."""
    told = desk.offline.status()
    if not told["isOn"] and not told["waiting"] and not told["lost"]:
        return {"offline": "off"}
    blocked = told["blockedBy"]
    state = "ready" if told["isOn"] else "off"
    return {
        "offline": state if blocked is None else f"blocked: {what_to_do(blocked) or blocked}",
        "offlineWaiting": f"{told['waiting']}, {_sum(desk.config, told['waitingUnits'])}",
        "offlineOldest": told["oldestAt"],
        "offlineLost": f"{told['lost']}, {_sum(desk.config, told['lostUnits'])}",
    }


def _limits(config: TerminalConfig, policy: Mapping[str, int] | None) -> dict[str, Any]:
    if policy is None:
        return {}
    return {
        "policy": f"version {policy['version']}",
        "perTap": _sum(config, policy["perTapUnits"]),
        "inAll": f"{policy['maxCount']} taps, {_sum(config, policy['sumUnits'])}",
        "for": f"{policy['maxAgeS']} s",
    }


def _sum(config: TerminalConfig, units: int) -> str:
    return f"{format_amount(units, config.terminal.decimals)} {config.terminal.currency}"
