"""The demo's story as assertions: what the customer sees, what is stored, what the chain says."""

from __future__ import annotations

import json

import pytest

from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.cards import KeycardCash
from taprail_hwsim.event_log import Event
from taprail_hwsim.stack import Stack
from tests.e2e.books import (
    all_told,
    charged_units,
    judge,
    payments,
    requests,
    stored_request_body,
)
from tests.e2e.counter import DEATH_TIMEOUT_S, restart_gateway

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
]

QUICK = ("bob", "carol", "dan", "erin", "frank", "grace", "heidi", "ivan", "kim", "leo")


async def shown(stack: Stack, phase: str, since: int) -> None:
    """Wait until the panel shows a phase, and let the wires' last bytes arrive."""
    await stack.log.wait_for("shown", since=since, where=lambda e: e.get("phase") == phase)
    await stack.panel.caught_up()


def request_of(event: Event) -> str:
    """The request that an event is about."""
    return str(event.get("request"))


async def test_a_tap_is_approved_and_settled(stack: Stack, blocks: BlockWatch) -> None:
    since = stack.log.position
    verdict = await stack.tap("alice", "12.50")
    assert (verdict.get("outcome"), verdict.get("verified")) == ("approved", True)
    await shown(stack, "approved", since)
    assert not stack.panel.lights()["red"]
    settled = await stack.settled(request_of(verdict))
    receipt = stack.chain.node.call("eth_getTransactionReceipt", settled.get("txHash"))
    assert receipt["status"] == "0x1"
    assert charged_units(stack, "alice") == [12_500_000]
    await all_told(stack, blocks)
    judge(stack)


async def test_over_the_daily_limit_the_customer_is_told_what_is_left(
    stack: Stack, blocks: BlockWatch
) -> None:
    for amount in ("50.00", "50.00", "50.00", "40.00"):
        assert (await stack.tap("judy", amount)).get("outcome") == "approved"
    since = stack.log.position
    verdict = await stack.tap("judy", "12.50")
    assert (verdict.get("outcome"), verdict.get("reasonCode")) == ("declined", "daily_limit")
    assert "10.00" in verdict.get("reason")
    view = await stack.log.wait_for(
        "view", since=since, where=lambda e: e.get("phase") == "declined"
    )
    assert view.get("leftUnits") == 10_000_000
    await shown(stack, "declined", since)
    assert stack.panel.lights()["red"]
    # What is left can still be spent.
    assert (await stack.tap("judy", "10.00")).get("outcome") == "approved"
    await all_told(stack, blocks)
    assert sum(charged_units(stack, "judy")) == 200_000_000
    judge(stack)


@pytest.mark.parametrize(
    ("card", "amount", "code"),
    [
        ("bob", "50.01", "single_limit"),
        ("poor", "0.51", "insufficient_balance"),
        ("frozen", "1.00", "card_frozen"),
        ("forged", "1.00", "card_proof_invalid"),
        ("tag", "1.00", "card_profile_disabled"),
    ],
)
async def test_a_decline_says_why_and_charges_nothing(
    stack: Stack, blocks: BlockWatch, card: str, amount: str, code: str
) -> None:
    before = len(payments(stack))
    verdict = await stack.tap(card, amount)
    assert (verdict.get("outcome"), verdict.get("reasonCode")) == ("declined", code)
    assert verdict.get("reason")
    assert len(payments(stack)) == before
    assert requests(stack)[request_of(verdict)].state == "declined"
    judge(stack)


async def test_a_replayed_tap_is_declined(stack: Stack, blocks: BlockWatch) -> None:
    assert (await stack.tap("alice", "1.10")).get("outcome") == "approved"
    before = charged_units(stack, "alice")
    verdict = await stack.tap("clone", "12.50")
    assert (verdict.get("outcome"), verdict.get("reasonCode")) == ("declined", "card_replayed")
    await all_told(stack, blocks)
    assert charged_units(stack, "alice")[len(before) :] in ([], [1_100_000])
    judge(stack)


async def test_a_card_torn_away_is_asked_for_again_and_pays_the_same_sale(
    stack: Stack, blocks: BlockWatch
) -> None:
    before, charged = set(requests(stack)), charged_units(stack, "carol")
    torn = await stack.tap("carol", "7.20", tear_after_apdus=1)
    assert torn.name == "try_again"
    assert set(requests(stack)) == before  # nothing was asked, so nothing can be charged
    again = await stack.tap("carol")  # no till has armed anything anew
    assert again.get("outcome") == "approved"
    assert requests(stack)[request_of(again)].amount_units == 7_200_000
    await all_told(stack, blocks)
    assert charged_units(stack, "carol") == [*charged, 7_200_000]
    judge(stack)


async def test_a_gateway_killed_between_commit_and_answer_leaves_unknown_never_declined(
    stack: Stack, blocks: BlockWatch
) -> None:
    charged = charged_units(stack, "dan")
    await restart_gateway(stack, crash="accept.committed@1")
    since = stack.log.position
    unknown = await stack.tap("dan", "19.90")
    assert unknown.name == "unknown"
    assert await stack.gateway.wait_exit(DEATH_TIMEOUT_S) == 137
    await shown(stack, "unknown", since)
    lights = stack.panel.lights()
    assert lights["amber"]
    assert not lights["red"]
    request_id = request_of(unknown)
    assert requests(stack)[request_id].state == "stored"
    assert payments(stack)[request_id].state == "pending"  # accepted, and nobody was told

    await stack.start_gateway()
    resolved = await stack.log.wait_for(
        "resolved", since=since, where=lambda e: request_of(e) == request_id
    )
    assert resolved.get("outcome") == "approved"
    assert stored_request_body(stack, request_id) == requests(stack)[request_id].body
    sent = [e for e in stack.log.events[since:] if e.name == "request_sent"]
    assert {request_of(event) for event in sent} == {request_id}
    assert len(sent) > 1  # the very same request, again
    outcomes = {e.get("outcome") for e in stack.log.events[since:] if e.name == "verdict"}
    assert outcomes == {"approved"}
    await all_told(stack, blocks)
    assert charged_units(stack, "dan") == [*charged, 19_900_000]
    judge(stack)


async def test_a_keycard_signs_its_own_transfer_and_the_chain_takes_that_signature(
    stack: Stack, blocks: BlockWatch
) -> None:
    keycard = stack.cards["keycard"]
    assert isinstance(keycard, KeycardCash)
    verdict = await stack.tap("keycard", "6.40")
    assert (verdict.get("outcome"), verdict.get("verified")) == ("approved", True)
    settled = await stack.settled(request_of(verdict))
    sent = stack.chain.node.call("eth_getTransactionByHash", settled.get("txHash"))
    proof = json.loads(stored_request_body(stack, request_of(verdict)))["proof"]
    assert proof["payer"] == keycard.address == stack.world.card("keycard").account
    assert proof["signature"][:64] in sent["input"]
    assert proof["signature"][64:] in sent["input"]
    assert len(keycard.digests) == 1
    assert charged_units(stack, "keycard") == [6_400_000]
    await all_told(stack, blocks)
    judge(stack)


async def test_a_keycard_that_is_torn_away_pays_once(stack: Stack, blocks: BlockWatch) -> None:
    before = charged_units(stack, "keycard")
    torn = await stack.tap("keycard", "1.20", tear_after_apdus=1)
    assert torn.name == "try_again"
    assert (await stack.tap("keycard")).get("outcome") == "approved"
    await all_told(stack, blocks)
    assert charged_units(stack, "keycard") == [*before, 1_200_000]
    judge(stack)


@pytest.mark.parametrize(("card", "code"), [("bank", "bank_card"), ("stranger", "card_unknown")])
async def test_a_card_of_others_is_refused_in_words_and_nothing_of_it_is_kept(
    stack: Stack, card: str, code: str
) -> None:
    before, since = set(requests(stack)), stack.log.position
    refused = await stack.tap(card, "1.00")
    if code == "bank_card":
        assert (refused.name, refused.get("code")) == ("card_refused", code)
        await shown(stack, "card_refused", since)
        assert set(requests(stack)) == before
    else:
        assert refused.get("reasonCode") == code
    uid = stack.cards[card].uid
    for file in stack.state_dir.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert uid not in content, file
            assert uid.hex().encode() not in content.lower(), file


async def test_ten_quick_taps_all_settle(stack: Stack, blocks: BlockWatch) -> None:
    before = {card: charged_units(stack, card) for card in QUICK}
    await blocks.next_block()
    for card in QUICK:
        assert (await stack.tap(card, "4.50")).get("outcome") == "approved"
    await all_told(stack, blocks)
    for card in QUICK:
        assert charged_units(stack, card) == [*before[card], 4_500_000]
    judge(stack)


async def test_no_event_and_no_log_names_a_card(stack: Stack) -> None:
    uids = [card.uid for card in stack.world.cards]
    told = json.dumps([event.fields for event in stack.log.events]).lower()
    logs = [stack.state_dir / f"{name}.log" for name in ("gateway", "terminal")]
    for text in (told, *(log.read_text().lower() for log in logs)):
        assert text
        assert not [uid for uid in uids if uid in text]
