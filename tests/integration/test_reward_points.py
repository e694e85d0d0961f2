"""RewardPoints on a real node: who may mint, and that no payment is rewarded twice."""

from __future__ import annotations

import pytest

from taprail_gateway.settle.mint_calls import gas_limit
from taprail_hwsim.dev_chain import DevChain
from tests.support.reward_points import (
    MINT_BATCH,
    SET_MINTER,
    Mint,
    RewardPoints,
    call_data,
    deploy,
    payers,
    payment_ids,
    selector,
)

pytestmark = pytest.mark.chain

ZERO = "0x" + "00" * 20
A, B = payers(2)
FIRST, SECOND, THIRD = payment_ids(3)


@pytest.fixture
def minter(chain: DevChain) -> str:
    return chain.accounts[1].lower()


@pytest.fixture
def stranger(chain: DevChain) -> str:
    return chain.accounts[2].lower()


@pytest.fixture
def points(chain: DevChain, minter: str) -> RewardPoints:
    points = RewardPoints.deploy(chain)
    points.grant(minter)
    return points


# --- minting ----------------------------------------------------------------------------------


def test_each_payment_of_a_batch_is_rewarded(points: RewardPoints, minter: str) -> None:
    receipt = points.send(minter, MINT_BATCH, [FIRST, SECOND, THIRD], [A, B, A], [10, 20, 5])
    assert receipt["status"] == "0x1"
    assert points.minted() == [
        Mint("0x" + FIRST.hex(), A, 10),
        Mint("0x" + SECOND.hex(), B, 20),
        Mint("0x" + THIRD.hex(), A, 5),
    ]
    assert (points.balance_of(A), points.balance_of(B)) == (15, 20)
    assert points.read("uint256", "totalSupply()") == 35
    assert len(points.logs("Transfer(address,address,uint256)")) == 3


def test_what_was_minted_before_is_skipped_and_takes_nothing_along(
    points: RewardPoints, minter: str
) -> None:
    points.send(minter, MINT_BATCH, [FIRST], [A], [10])
    receipt = points.send(minter, MINT_BATCH, [FIRST, SECOND], [B, B], [99, 20])
    assert receipt["status"] == "0x1"
    assert points.skipped() == ["0x" + FIRST.hex()]
    assert (points.balance_of(A), points.balance_of(B)) == (10, 20)
    assert points.read("bool", "isMinted(bytes32)", FIRST)


def test_twice_in_one_batch_is_once(points: RewardPoints, minter: str) -> None:
    points.send(minter, MINT_BATCH, [FIRST, FIRST], [A, A], [10, 10])
    assert points.balance_of(A) == 10
    assert points.skipped() == ["0x" + FIRST.hex()]
    assert points.read("uint256", "totalSupply()") == 10


def test_it_returns_how_many_were_minted(points: RewardPoints, minter: str) -> None:
    points.send(minter, MINT_BATCH, [FIRST], [A], [10])
    data = call_data(MINT_BATCH, [FIRST, SECOND, THIRD], [A, A, A], [1, 1, 1])
    call = {"from": minter, "to": points.address, "data": data}
    assert int(points.chain.node.call("eth_call", call, "latest"), 16) == 2


def test_an_empty_batch_changes_nothing(points: RewardPoints, minter: str) -> None:
    assert points.send(minter, MINT_BATCH, [], [], [])["status"] == "0x1"
    assert points.minted() == []


@pytest.mark.parametrize("wrong", [([FIRST], [A, B], [1, 2]), ([FIRST, SECOND], [A, B], [1])])
def test_lists_of_unequal_length_are_refused(
    points: RewardPoints, minter: str, wrong: tuple[list[bytes], list[str], list[int]]
) -> None:
    error = selector("LengthMismatch(uint256,uint256,uint256)")
    assert points.refusal(minter, MINT_BATCH, *wrong) == error


def test_nothing_is_minted_to_the_zero_address(points: RewardPoints, minter: str) -> None:
    refused = ([FIRST, SECOND], [A, ZERO], [1, 2])
    assert points.refusal(minter, MINT_BATCH, *refused) == selector("ZeroAddress()")
    assert points.send(minter, MINT_BATCH, *refused)["status"] == "0x0"
    assert points.balance_of(A) == 0


def test_the_supply_cannot_overflow(points: RewardPoints, minter: str) -> None:
    points.send(minter, MINT_BATCH, [FIRST], [A], [2**256 - 1])
    assert points.send(minter, MINT_BATCH, [SECOND], [A], [1])["status"] == "0x0"
    assert points.balance_of(A) == 2**256 - 1


# --- who may ----------------------------------------------------------------------------------


def test_a_stranger_mints_nothing(points: RewardPoints, stranger: str) -> None:
    assert points.refusal(stranger, MINT_BATCH, [FIRST], [A], [1]) == selector("NotMinter(address)")
    assert points.send(stranger, MINT_BATCH, [FIRST], [A], [1])["status"] == "0x0"
    assert points.refusal(points.owner, MINT_BATCH, [FIRST], [A], [1]) == selector(
        "NotMinter(address)"
    )
    assert points.minted() == []


def test_only_the_owner_grants_and_what_is_revoked_is_gone(
    points: RewardPoints, minter: str, stranger: str
) -> None:
    error = selector("NotOwner(address)")
    for caller in (stranger, minter):
        assert points.refusal(caller, SET_MINTER, stranger, True) == error
    points.grant(minter, allowed=False)
    assert points.refusal(minter, MINT_BATCH, [FIRST], [A], [1]) == selector("NotMinter(address)")
    assert points.refusal(points.owner, SET_MINTER, ZERO, True) == selector("ZeroAddress()")


def test_the_contract_changes_hands_in_two_steps(
    points: RewardPoints, minter: str, stranger: str
) -> None:
    offer, take = "offerOwnership(address)", "takeOwnership()"
    assert points.refusal(stranger, offer, stranger) == selector("NotOwner(address)")
    points.send(points.owner, offer, stranger)
    assert points.read("address", "owner()") == points.owner.lower()
    assert points.refusal(minter, take) == selector("NotOfferedTo(address)")
    points.send(stranger, take)
    assert points.read("address", "owner()") == stranger
    assert points.refusal(stranger, take) == selector("NotOfferedTo(address)")
    assert points.refusal(points.owner, SET_MINTER, minter, True) == selector("NotOwner(address)")


def test_an_offer_can_be_taken_back(points: RewardPoints, stranger: str) -> None:
    points.send(points.owner, "offerOwnership(address)", stranger)
    points.send(points.owner, "offerOwnership(address)", ZERO)
    assert points.refusal(stranger, "takeOwnership()") == selector("NotOfferedTo(address)")


def test_amounts_fit_the_ledger_and_somebody_owns_it(chain: DevChain) -> None:
    assert deploy(chain, chain.accounts[0], decimals=6)["status"] == "0x1"
    assert deploy(chain, chain.accounts[0], decimals=7)["status"] == "0x0"
    assert deploy(chain, ZERO, decimals=2)["status"] == "0x0"


# --- ERC-20 -----------------------------------------------------------------------------------


def test_points_can_be_passed_on(points: RewardPoints, minter: str, stranger: str) -> None:
    points.send(minter, MINT_BATCH, [FIRST], [stranger], [10])
    points.send(stranger, "transfer(address,uint256)", A, 4)
    points.send(stranger, "approve(address,uint256)", minter, 5)
    points.send(minter, "transferFrom(address,address,uint256)", stranger, B, 3)
    assert [points.balance_of(each) for each in (stranger, A, B)] == [3, 4, 3]
    assert points.read("uint256", "allowance(address,address)", stranger, minter) == 2
    moves = {
        ("transfer(address,uint256)", A, 4): "InsufficientBalance(address,uint256,uint256)",
        ("transfer(address,uint256)", ZERO, 1): "ZeroAddress()",
    }
    for move, error in moves.items():
        assert points.refusal(stranger, *move) == selector(error)
    taken = ("transferFrom(address,address,uint256)", stranger, B, 3)
    error = selector("InsufficientAllowance(address,uint256,uint256)")
    assert points.refusal(minter, *taken) == error


# --- what it costs ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10, 50])
def test_a_mint_costs_what_the_table_says(points: RewardPoints, minter: str, count: int) -> None:
    """First-ever recipients, the dearest case: storage for the payment and for the balance."""
    amounts = [10**12] * count
    receipt = points.send(minter, MINT_BATCH, payment_ids(count, start=9), payers(count), amounts)
    assert receipt["status"] == "0x1"
    assert 0.8 * gas_limit(count) < int(receipt["gasUsed"], 16) < 0.95 * gas_limit(count)
