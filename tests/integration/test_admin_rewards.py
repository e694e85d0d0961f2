"""`taprail admin reward` on a real node: a merchant deploys the contract and lets wallets mint."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from coincurve import PrivateKey
from sqlalchemy import insert
from typer.testing import CliRunner

from taprail_common.errors import InputError, OperatorError
from taprail_common.signing import write_secret_file
from taprail_gateway.admin import app
from taprail_gateway.custody import address_of
from taprail_gateway.ledger import schema
from taprail_gateway.settle.reward_settings import RewardSettings
from taprail_hwsim.dev_chain import DevChain
from tests.support.admin_fixtures import TOKEN, Admin
from tests.support.reward_points import RewardPoints

pytestmark = pytest.mark.chain

ETHER = 10**18
NAMED = ("--name", "Corner Points", "--symbol", "PTS")


class Owner:
    """Somebody with a key in a file and coin for gas."""

    def __init__(self, chain: DevChain, file: Path, wei: int = ETHER) -> None:
        key = PrivateKey()
        self.file = file
        self.address = address_of(key)
        write_secret_file(file, key.to_hex() + "\n")
        chain.fund(self.address, wei)

    @property
    def option(self) -> tuple[str, str]:
        return "--owner-key", str(self.file)


@pytest.fixture
def shop(admin: Admin, chain: DevChain) -> Admin:
    """The admin commands of a gateway on the chain."""
    text = admin.config.read_text()
    text = text.replace("http://127.0.0.1:9", chain.rpc_url).replace(TOKEN, chain.token_address)
    admin.config.write_text(text + f'multicall = "{chain.multicall_address}"\n')
    return admin


@pytest.fixture
def owner(chain: DevChain, tmp_path: Path) -> Owner:
    return Owner(chain, tmp_path / "owner.key")


def wallet(shop: Admin) -> str:
    return str(shop.json("lane", "add", "--purpose", "rewards")["address"])


def test_a_contract_is_deployed_and_every_wallet_may_mint(
    shop: Admin, chain: DevChain, owner: Owner
) -> None:
    wallets = [wallet(shop), wallet(shop)]
    made = shop.json("reward", "deploy", *NAMED, *owner.option)
    assert sorted(made["minters"]) == sorted(wallets)
    points = RewardPoints(chain, made["contract"], owner.address)
    assert points.read("string", "name()") == "Corner Points"
    assert points.read("string", "symbol()") == "PTS"
    assert points.read("uint8", "decimals()") == 2
    assert points.read("address", "owner()") == owner.address
    assert all(points.read("bool", "isMinter(address)", each) for each in wallets)


def test_a_contract_that_was_made_is_named_even_when_a_grant_fails(
    shop: Admin, chain: DevChain, owner: Owner
) -> None:
    nobody = {"address": "0x" + "00" * 20, "wrapped_key": b"", "created_at_ms": 1}
    shop.do(lambda c: c.execute(insert(schema.lanes).values(**nobody, purpose="rewards")))
    with pytest.raises(OperatorError, match="not every wallet may mint") as refused:
        shop("reward", "deploy", *NAMED, *owner.option)
    made = refused.value.fix.split()[-1]
    assert made in refused.value.message
    points = RewardPoints(chain, made, owner.address)
    assert points.read("address", "owner()") == owner.address


def test_a_wallet_that_comes_later_is_granted_and_no_other_twice(shop: Admin, owner: Owner) -> None:
    said = shop("reward", "deploy", *NAMED, *owner.option)
    assert "There is no rewards wallet yet" in said
    contract = next(word for word in said.split() if word.startswith("0x")).rstrip(",")
    written = tomllib.loads(said[said.index("[rewards]") :].partition("There is")[0])
    settings = RewardSettings.model_validate(written["rewards"])
    assert settings.contract == contract
    assert settings.fraction * 10**6 == 10**2, "of the token's units, and the points'"
    later = wallet(shop)
    named = ("reward", "grant", "--contract", contract)
    assert shop.json(*named, *owner.option)["granted"] == [later]
    assert shop.json(*named, *owner.option)["granted"] == []
    assert shop.json(*named) == {"contract": contract, "minters": [later], "granted": []}


def test_without_a_key_it_says_what_the_owner_must_send(shop: Admin, chain: DevChain) -> None:
    boss = chain.accounts[2]  # unlocked at the node: stands for a wallet of the owner's own
    [making] = shop.json("reward", "deploy", *NAMED, "--owner", boss)
    assert making["to"] is None
    sent = {"from": chain.accounts[1], "data": making["data"], "gas": hex(3_000_000)}
    tx_hash = chain.node.call("eth_sendTransaction", sent)
    chain.mine()
    contract = chain.node.call("eth_getTransactionReceipt", tx_hash)["contractAddress"]
    wallets = [wallet(shop), wallet(shop)]
    asked = shop.json("reward", "grant", "--contract", contract)
    assert [each["to"] for each in asked] == [contract, contract]
    assert wallets[0] in shop("reward", "grant", "--contract", contract)
    for each in asked:
        assert chain.send(boss, contract, each["data"])["status"] == "0x1"
    assert shop.json("reward", "grant", "--contract", contract)["minters"] == sorted(wallets)


def test_nobody_but_the_owner_grants(
    shop: Admin, chain: DevChain, owner: Owner, tmp_path: Path
) -> None:
    wallet(shop)
    points = RewardPoints.deploy(chain)
    with pytest.raises(OperatorError, match="belongs to") as refused:
        shop("reward", "grant", "--contract", points.address, *owner.option)
    assert points.owner.lower() in str(refused.value)


def test_who_has_no_coin_is_told_so(shop: Admin, chain: DevChain, tmp_path: Path) -> None:
    poor = Owner(chain, tmp_path / "poor.key", wei=0)
    with pytest.raises(OperatorError, match="too little of the chain's coin") as refused:
        shop("reward", "deploy", *NAMED, *poor.option)
    assert poor.address in str(refused.value)


@pytest.mark.parametrize("where", ["token", "nothing"])
def test_what_is_no_rewards_contract_is_refused(
    shop: Admin, chain: DevChain, owner: Owner, where: str
) -> None:
    wallet(shop)
    address = chain.token_address if where == "token" else "0x" + "bd" * 20
    for option in ((), owner.option):
        with pytest.raises(OperatorError, match="is no RewardPoints"):
            shop("reward", "grant", "--contract", address, *option)


@pytest.mark.parametrize("content", ["zz" * 32, "12" * 31, "00" * 32, "ff" * 32])
def test_a_file_that_holds_no_key_is_refused(shop: Admin, tmp_path: Path, content: str) -> None:
    file = tmp_path / "odd.key"
    write_secret_file(file, content)
    with pytest.raises(OperatorError, match="is no private key") as refused:
        shop("reward", "deploy", *NAMED, "--owner-key", str(file))
    assert content not in str(refused.value)


def test_a_key_that_others_may_read_is_refused(shop: Admin, owner: Owner) -> None:
    owner.file.chmod(0o644)
    with pytest.raises(OperatorError, match="may be read by others"):
        shop("reward", "deploy", *NAMED, *owner.option)


def test_what_is_missing_is_said(shop: Admin, owner: Owner) -> None:
    with pytest.raises(OperatorError, match="whose contract"):
        shop("reward", "deploy", *NAMED)
    with pytest.raises(OperatorError, match="which contract"):
        shop("reward", "grant")
    with pytest.raises(InputError, match="address"):
        shop("reward", "grant", "--contract", "0x12")
    with pytest.raises(OperatorError, match="no rewards wallet"):
        shop("reward", "grant", "--contract", "0x" + "ab" * 20)
    with pytest.raises(InputError, match="name"):
        shop("reward", "deploy", "--name", "", "--symbol", "PTS", *owner.option)
    asked = ("reward", "deploy", *NAMED, "--decimals", "7", *owner.option)
    result = CliRunner().invoke(app, ["--config", str(shop.config), *asked])
    assert result.exit_code == 2


def test_nothing_was_given_up(shop: Admin) -> None:
    assert shop.json("reward", "retry", "--reason", "to be sure") == {"retried": 0}
    assert "0 rewards" in shop("reward", "retry")
    assert shop.json("history", "rewards") == []
