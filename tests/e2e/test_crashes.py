"""kill -9 at every durable step: nothing is lost, nobody is charged twice, judged by the chain.

Each test first shows that the process died where it says (what is stored, what the node knows),
then starts it again and waits until chain, ledger and terminal are at their end.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import pytest

from taprail_common.signing import Domain, parse_public_key, verify
from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.stack import Stack
from tests.e2e.books import (
    Payment,
    all_told,
    charged_units,
    judge,
    newest_request,
    payments,
    stored_request_body,
)
from tests.e2e.counter import restart_gateway, restart_terminal, tap_until_dead

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
]


@dataclass(frozen=True)
class Death:
    """Where a gateway dies, and what an onlooker finds then. `state` is the payment's, None: none.
    `is_out` says whether a node has the transaction, None: nothing was signed."""

    point: str
    card: str
    amount: str
    state: str | None
    is_out: bool | None

    @property
    def amount_units(self) -> int:
        return round(float(self.amount) * 100) * 10_000


GATEWAY_DEATHS = [
    Death("accept.written", "alice", "1.01", None, None),
    Death("accept.committed", "bob", "1.02", "pending", None),
    Death("settle.bound", "carol", "1.03", "processing", is_out=False),
    Death("settle.broadcast", "dan", "1.04", "processing", is_out=True),
    Death("settle.completed", "erin", "1.05", "completed", is_out=True),
    Death("push.before_emit", "frank", "1.06", "completed", is_out=True),
]


@pytest.mark.parametrize("death", GATEWAY_DEATHS, ids=lambda death: death.point)
async def test_a_gateway_that_dies_here_charges_once(
    stack: Stack, blocks: BlockWatch, death: Death
) -> None:
    await restart_gateway(stack, crash=death.point)
    since = stack.log.position
    await tap_until_dead(stack, death.card, death.amount, stack.gateway)
    request = newest_request(stack)
    assert request.amount_units == death.amount_units
    assert request.state in {"stored", "approved"}  # nobody has told it of the end
    payment = payments(stack).get(request.request_id)
    assert (payment.state if payment else None) == death.state
    assert _is_out(stack, payment) == death.is_out

    await stack.start_gateway()
    await stack.log.wait_for("card_removed", since=since)
    await all_told(stack, blocks)
    assert newest_request(stack).state == "settled"
    assert stored_request_body(stack, request.request_id) == request.body
    assert charged_units(stack, death.card) == [death.amount_units]
    judge(stack)


@pytest.mark.parametrize(
    ("point", "card", "outbox_state", "gateway_knows"),
    [
        ("tap.stored", "grace", "stored", False),
        ("tap.sent", "heidi", "stored", True),
        ("tap.verdict", "ivan", "approved", True),
    ],
)
async def test_a_terminal_that_dies_here_learns_the_truth(
    stack: Stack,
    blocks: BlockWatch,
    point: str,
    card: str,
    outbox_state: str,
    gateway_knows: bool,
) -> None:
    await restart_terminal(stack, crash=point)
    await tap_until_dead(stack, card, "2.50", stack.terminal)
    request = newest_request(stack)
    assert request.state == outbox_state
    assert (request.request_id in payments(stack)) is gateway_knows

    await stack.start_terminal()
    await all_told(stack, blocks)
    assert newest_request(stack).state == "settled"
    assert stored_request_body(stack, request.request_id) == request.body
    assert charged_units(stack, card) == [2_500_000]
    judge(stack)


async def test_both_killed_under_open_payments(stack: Stack, blocks: BlockWatch) -> None:
    """A power cut of the whole counter: approved taps are on their way, and one is not answered."""
    cards = ("kim", "leo")
    await blocks.next_block()
    for card in cards:
        assert (await stack.tap(card, "3.30")).get("outcome") == "approved"
    await stack.arm("3.40")
    since = stack.log.position
    stack.reader.put(stack.cards["judy"])
    await stack.log.wait_for("stored", since=since)
    await stack.gateway.kill()
    await stack.terminal.kill()
    stack.reader.lift()

    await stack.start_gateway()
    await stack.start_terminal()
    await all_told(stack, blocks)
    assert [charged_units(stack, card) for card in cards] == [[3_300_000]] * 2
    assert charged_units(stack, "judy") == [3_400_000]
    judge(stack)


async def test_a_request_that_comes_too_late_is_refused_for_good(
    stack: Stack, blocks: BlockWatch
) -> None:
    """The customer has long paid in cash: the first acceptance after acceptUntil is a signed no."""
    charged = charged_units(stack, "judy")
    await restart_terminal(stack, crash="tap.stored")
    await tap_until_dead(stack, "judy", "9.90", stack.terminal)
    request = newest_request(stack)
    accept_until = json.loads(request.body)["acceptUntil"]
    while time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) <= accept_until[:19]:
        await blocks.next_block()

    await stack.start_terminal()
    await all_told(stack, blocks)
    refused = newest_request(stack)
    assert (refused.request_id, refused.state) == (request.request_id, "declined")
    assert refused.verdict is not None
    assert refused.verdict_signature is not None
    verify(
        parse_public_key(stack.world.gateway_public_key),
        Domain.VERDICT,
        refused.verdict,
        refused.verdict_signature,
        about=request.body,
    )
    verdict = json.loads(refused.verdict)
    assert (verdict["verdict"], verdict["reasonCode"]) == ("declined", "accept_until_passed")
    assert charged_units(stack, "judy") == charged
    judge(stack)


def _is_out(stack: Stack, payment: Payment | None) -> bool | None:
    """Whether a node has one of the transactions that were signed for a payment."""
    if payment is None or not payment.tx_hashes:
        return None
    answers = [
        stack.chain.node.call("eth_getTransactionByHash", tx_hash) for tx_hash in payment.tx_hashes
    ]
    return any(answer is not None for answer in answers)
