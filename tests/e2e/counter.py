"""What tests do at the counter beyond a plain tap: programs die under a card and come back."""

from __future__ import annotations

from taprail_common.crash import EXIT_CODE
from taprail_hwsim.process import Program
from taprail_hwsim.stack import Stack

DEATH_TIMEOUT_S = 30.0


async def restart_gateway(stack: Stack, crash: str | None = None) -> None:
    """End the gateway as its supervisor would and start it again, perhaps with a crash point."""
    assert await stack.gateway.stop() == 0
    await stack.start_gateway(crash)


async def restart_terminal(stack: Stack, crash: str | None = None) -> None:
    """End the terminal as its supervisor would and start it again, perhaps with a crash point."""
    assert await stack.terminal.stop() == 0
    await stack.start_terminal(crash)


async def tap_until_dead(stack: Stack, card: str, amount: str, program: Program) -> None:
    """Put a card, wait until the program has died at its crash point, lift the card."""
    await stack.arm(amount)
    stack.reader.put(stack.cards[card])
    try:
        assert await program.wait_exit(DEATH_TIMEOUT_S) == EXIT_CODE
    finally:
        stack.reader.lift()
