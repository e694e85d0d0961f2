"""What an operator does with `taprail admin` while the gateway runs and customers tap."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey
from typer.testing import CliRunner

from taprail_common.signing import write_secret_file
from taprail_gateway.admin import app
from taprail_gateway.custody import address_of
from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.stack import Stack
from tests.e2e.books import all_told, charged_units, payments
from tests.support.reward_points import RewardPoints

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
]

ETHER = 10**18
WAIT_S = 60.0


async def admin(stack: Stack, *arguments: str) -> Any:
    """Give a command, in this process: loading it anew each time takes longer than all it does."""
    given = ["--config", str(stack.gateway_config), *arguments, "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, app, given)
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


async def in_force(blocks: BlockWatch) -> None:
    """A running gateway follows within a second; a block takes one."""
    for _ in range(2):
        await blocks.next_block()


async def test_a_dear_payment_that_fails_is_flagged_for_a_person(
    stack: Stack, blocks: BlockWatch
) -> None:
    await admin(stack, "queue", "pause", "--reason", "a flood")
    await in_force(blocks)
    for card, amount in (("alice", "2.00"), ("bob", "0.50")):
        assert (await stack.tap(card, amount)).get("outcome") == "approved"
    assert {payment.state for payment in payments(stack).values()} == {"pending"}
    done = await admin(stack, "queue", "cancel-unsent", "--reason", "a flood", "--yes")
    assert done == {"cancelled": 2, "left": 0}
    await admin(stack, "queue", "resume")
    [dear] = [each for each in payments(stack).values() if each.amount_units == 2_000_000]
    [alert] = await admin(stack, "alert", "list", "--review")
    assert (alert["kind"], alert["subject"]) == ("payment_failed", dear.id)
    assert "a flood" in alert["text"]
    assert (await admin(stack, "queue", "status"))["openAlerts"] == 1
    await admin(stack, "alert", "clear", str(alert["id"]), "--reason", "told the customer")
    assert await admin(stack, "alert", "list") == []
    actions = [each["action"] for each in await admin(stack, "history")]
    assert actions == ["clear-alert", "reset", "cancel-unsent", "set"]
    assert charged_units(stack, "alice") == charged_units(stack, "bob") == []


async def test_a_tap_in_a_short_drain_is_charged_once(stack: Stack, blocks: BlockWatch) -> None:
    await admin(stack, "queue", "drain", "--reason", "it moves house")
    await in_force(blocks)
    tapped = await stack.tap("carol", "1.10")
    assert tapped.name == "unknown", "never a decline"
    await admin(stack, "queue", "resume")
    await all_told(stack, blocks)
    assert charged_units(stack, "carol") == [1_100_000]


async def test_a_merchant_sets_rewards_up_and_a_customer_has_them(
    stack: Stack, blocks: BlockWatch, tmp_path: Path
) -> None:
    key = PrivateKey()
    write_secret_file(tmp_path / "owner.key", key.to_hex())
    wallet = (await admin(stack, "lane", "add", "--purpose", "rewards"))["address"]
    for account in (wallet, address_of(key)):
        stack.chain.fund(account, ETHER)
    named = ("--name", "Corner Points", "--symbol", "PTS")
    owned = ("--owner-key", str(tmp_path / "owner.key"))
    made = await admin(stack, "reward", "deploy", *named, *owned)
    assert made["minters"] == [wallet]
    with stack.gateway_config.open("a") as file:
        file.write(
            f'[rewards]\ncontract = "{made["contract"]}"\nrate = "{made["oneForOneRate"]}"\n'
        )
    await stack.gateway.stop()
    await stack.start_gateway()
    assert (await stack.tap("dan", "3.00")).get("outcome") == "approved"
    async with asyncio.timeout(WAIT_S):
        while (await admin(stack, "queue", "status"))["queues"]["mints"]["completed"] != 1:
            await blocks.next_block()
    points = RewardPoints(stack.chain, made["contract"], address_of(key))
    assert points.balance_of(stack.world.card("dan").account) == 300, "a point for each 1.00"
    assert charged_units(stack, "dan") == [3_000_000]
