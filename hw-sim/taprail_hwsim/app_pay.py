"""`taprail-sim pay`: pays as an app does, over HTTP and with the token of a card's owner.

It speaks to a running `taprail-sim up`, by the gateway's own client.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from taprail_common.client.errors import DeclinedError
from taprail_common.client.gateway import GatewayClient, bearer
from taprail_common.money import parse_amount
from taprail_common.wire import AppPayment
from taprail_gateway.config import GatewaySettings
from taprail_hwsim import world as worlds
from taprail_hwsim.up import SOCKET_NAME, SimulatorError
from taprail_terminal.config import load_config

_SETTLE_TIMEOUT_S: Final = 120.0


async def pay(
    state_dir: Path, card: str, amount: str, *, key: str | None, settle: bool
) -> dict[str, Any]:
    """What came of it; raises SimulatorError, or an error of the client."""
    world = _world(state_dir)
    try:
        found = world.card(card)
    except StopIteration:
        names = ", ".join(each.name for each in world.cards)
        raise SimulatorError(f"no card {card!r}; there are: {names}") from None
    jwt = next(user.jwt for user in world.users if user.id == found.user)
    where = GatewaySettings.load(state_dir / "gateway.toml").gateway
    terminal = load_config(state_dir / "terminal.toml").terminal
    order = AppPayment(
        card_uuid=found.card_uuid,
        amount=parse_amount(amount, terminal.decimals),
        merchant_id=worlds.MERCHANT_ID,
        terminal_id=worlds.TERMINAL_ID,
    )
    url = f"http://{where.host}:{where.port}"
    async with GatewayClient(url, bearer(jwt)) as gateway:
        try:
            paid = await gateway.pay(order, key=key)
        except DeclinedError as declined:
            verdict = declined.verdict
            return {
                "outcome": "declined",
                "reason": verdict.reason,
                "reasonCode": verdict.reason_code,
                "whatToDo": declined.fix,
            }
        result: dict[str, Any] = {"outcome": "approved", "transactionId": paid.transaction_id}
        if settle:
            done = await gateway.settled(paid.transaction_id, timeout_s=_SETTLE_TIMEOUT_S)
            result |= {"status": done.status.value, "txHash": done.tx_hash}
    return result


def _world(state_dir: Path) -> worlds.World:
    if not (state_dir / SOCKET_NAME).exists():
        raise SimulatorError(
            f"nothing runs in {state_dir}: start it with `taprail-sim up --state-dir {state_dir}`"
        )
    return worlds.load(state_dir / "world.json")
