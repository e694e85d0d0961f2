"""`taprail-sim tap --fault`: a fault around one card, and what the terminal makes of it in the end.

When the fault is over and nothing was charged by it, the same card is tapped once more, as a
customer does: a terminal that has survived takes it.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

from taprail_hwsim.event_log import Event, command
from taprail_hwsim.faults import FAULTS, Fault, Scene
from taprail_hwsim.pads import Pn532Pad
from taprail_hwsim.stack import SAME_CARD_PAUSE_S, Stack

_SAYS: Final = ("verdict", "unknown", "taken_offline", "try_again", "card_refused")
_MOVES: Final = (*_SAYS, "view", "resolved", "reader", "card_removed", "shown")
_REST_LIMIT_S: Final = 30.0


async def tap_with_fault(
    stack: Stack, card: str, amount: str | None, fault: Fault, seed: int
) -> Event:
    """Play it on a running stack; the verdict, or what became of the tap after it."""
    if amount is not None:
        await stack.arm(amount)
    mark = stack.log.position
    await fault.play(_scene(stack, seed), stack.cards[card])
    await _comes_to_rest(stack)
    verdict = next((it for it in stack.log.events[mark:] if it.name == "verdict"), None)
    if verdict is not None:
        return verdict
    await asyncio.sleep(SAME_CARD_PAUSE_S)
    is_armed = (await command(stack.control_socket, command="status"))["armed"]
    return await stack.tap(card, None if is_armed else amount)


def _scene(stack: Stack, seed: int) -> Scene:
    async def answered() -> None:
        await stack.log.wait_for(*_SAYS, since=stack.log.position)

    return Scene(stack.pad, random.Random(seed), answered, stack.wire, stack.cut_power)


async def _comes_to_rest(stack: Stack) -> None:
    """Until the pad is seen empty, the reader works and nothing is unresolved."""
    async with asyncio.timeout(_REST_LIMIT_S):
        while True:
            mark = stack.log.position
            now = await command(stack.control_socket, command="status")
            resting = now["reader"]["ok"] and not now["cardPresent"]
            if resting and not now["outbox"]["unresolved"]:
                return
            await stack.log.wait_for(*_MOVES, since=mark, timeout_s=_REST_LIMIT_S)


def known(name: str) -> Fault:
    """A fault by its name, of those that the simulator's reader can meet; ValueError: none."""
    there = {name: fault for name, fault in FAULTS.items() if Pn532Pad.driver in fault.readers}
    if name not in there:
        raise ValueError(f"no fault {name!r}; there are: {', '.join(there)}")
    return there[name]
