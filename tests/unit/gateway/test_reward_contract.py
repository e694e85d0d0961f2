"""How the rewards contract is made, held against eth_abi and addresses known from elsewhere."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode

from taprail_common.errors import InputError
from taprail_gateway.settle.mint_calls import OWNER, set_minter
from taprail_gateway.settle.reward_contract import NewPoints, contract_address, creation_code
from taprail_hwsim.contracts import read_artifact
from tests.support.reward_points import CONTRACTS, SET_MINTER, call_data, payers

OWNER_ADDRESS = "0x" + "ab" * 20


@pytest.mark.parametrize("name", ["P", "Corner Points", "é" * 16, "a" * 32, "a" * 33, "ü" * 64])
def test_the_arguments_follow_the_code_as_the_abi_says(name: str) -> None:
    code = read_artifact(CONTRACTS / "artifacts" / "RewardPoints.json").bytecode
    arguments = encode(["string", "string", "uint8", "address"], [name, "PTS", 2, OWNER_ADDRESS])
    made = creation_code(NewPoints(name, "PTS", 2, OWNER_ADDRESS))
    assert "0x" + made.hex() == code + arguments.hex()


@pytest.mark.parametrize(
    ("name", "symbol", "decimals", "owner", "field"),
    [
        ("", "PTS", 2, OWNER_ADDRESS, "name"),
        (" ", "PTS", 2, OWNER_ADDRESS, "name"),
        ("a\nb", "PTS", 2, OWNER_ADDRESS, "name"),
        ("a" * 65, "PTS", 2, OWNER_ADDRESS, "name"),
        ("Points", "", 2, OWNER_ADDRESS, "symbol"),
        ("Points", "P" * 12, 2, OWNER_ADDRESS, "symbol"),
        ("Points", "PTS", 7, OWNER_ADDRESS, "decimals"),
        ("Points", "PTS", -1, OWNER_ADDRESS, "decimals"),
        ("Points", "PTS", 2, "0x12", "address"),
        ("Points", "PTS", 2, "", "address"),
    ],
)
def test_what_no_wallet_could_show_is_refused(
    name: str, symbol: str, decimals: int, owner: str, field: str
) -> None:
    with pytest.raises(InputError) as refused:
        creation_code(NewPoints(name, symbol, decimals, owner))
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("nonce", "address"),
    [  # an account whose contracts the Ethereum community uses as the example of this rule
        (0, "0xcd234a471b72ba2f1ccf0a70fcaba648a5eecd8d"),
        (1, "0x343c43a37d37dff08ae8c4a11544c718abb4fcf8"),
        (2, "0xf778b86fa74e846c4f0a1fbd1335fe81c00a0c91"),
        (3, "0xfffd933a0bc612844eaf0c6fe3e5b8e9b6c1d19c"),
    ],
)
def test_where_a_contract_comes_to_lie(nonce: int, address: str) -> None:
    assert contract_address("0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0", nonce) == address


def test_what_the_owner_says_to_it() -> None:
    (account,) = payers(1)
    assert "0x" + set_minter(account).hex() == call_data(SET_MINTER, account, True)
    assert "0x" + OWNER.hex() == call_data("owner()")
