"""`taprail-sim up` as an app's developer uses it: one JSON object, and everything that it names."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.node_tools import find_node
from taprail_hwsim.world import MERCHANT_ACCOUNT, START_BALANCE_UNITS
from tests.e2e import cookbook
from tests.e2e.programs import run_warm
from tests.e2e.up import MODULES, Up, fill_float, running

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
]

SETTLE_TIMEOUT_S = 30.0
COOKBOOK_TIMEOUT_S = 90.0
PAY = "/api/payment/process-async"


@pytest.fixture(scope="module")
def port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory, port: int) -> AsyncIterator[Up]:
    """One `up` for the tests of this module that only use it."""
    async with running(tmp_path_factory.mktemp("u"), "--port", str(port)) as up:
        yield up


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(up: Up) -> AsyncIterator[aiohttp.ClientSession]:
    """An app's HTTP client."""
    async with aiohttp.ClientSession(up.where["gatewayUrl"]) as session:
        yield session


async def completed(up: Up, app: aiohttp.ClientSession, user: str, path: str) -> dict[str, Any]:
    """Ask for a transaction with each block until it is completed."""
    async with asyncio.timeout(SETTLE_TIMEOUT_S), BlockWatch(up.where["rpcUrl"]) as blocks:
        while True:
            async with app.get(path, headers=up.bearer(user)) as answer:
                assert answer.status == 200
                transaction: dict[str, Any] = (await answer.json())["transaction"]
            if transaction["status"] == "completed":
                return transaction
            await blocks.next_block()


def order(up: Up, card: str, amount_units: int) -> dict[str, Any]:
    """An app's payment."""
    return {
        "cardUuid": up.card(card)["cardUuid"],
        "amount": amount_units,
        "merchantId": up.where["merchants"][0]["id"],
        "terminalId": up.where["terminals"][0]["id"],
    }


async def test_it_says_where_everything_is(up: Up, port: int) -> None:
    where, config = up.where, await asyncio.to_thread(Path(up.where["config"]).read_text)
    assert where["gatewayUrl"] == f"http://127.0.0.1:{port}"
    assert {"rpcUrl", "token", "multicall", "config"} <= where.keys()
    assert where["rpcUrl"] in config
    assert {"id", "role", "jwt"} <= where["users"][0].keys()
    assert {user["role"] for user in where["users"]} == {"customer", "merchant", "operator"}
    assert {"cardUuid", "name", "account"} <= where["cards"][0].keys()
    assert where["merchants"]
    assert where["terminals"]
    chain = up.chain
    assert chain.node.call("eth_getCode", where["token"], "latest") != "0x"
    assert chain.node.call("eth_getCode", where["multicall"], "latest") != "0x"
    assert chain.balance_of(up.card("leo")["account"]) == START_BALANCE_UNITS


async def test_an_app_pays_with_a_card_of_its_user(up: Up, app: aiohttp.ClientSession) -> None:
    body = order(up, "bob", 4_200_000)
    async with app.post(PAY, json=body, headers=up.bearer("bob")) as answer:
        assert answer.status == 200
        accepted = await answer.json()
    assert (accepted["success"], accepted["status"]) == (True, "pending")
    transaction = await completed(up, app, "bob", accepted["statusUrl"])
    receipt = up.chain.node.call("eth_getTransactionReceipt", transaction["txHash"])
    assert receipt["status"] == "0x1"
    account = up.card("bob")["account"]
    moved = [move for move in up.chain.transfers(to=MERCHANT_ACCOUNT) if move.sender == account]
    assert [(move.nonce, move.amount_units) for move in moved] == [
        (accepted["transactionId"], 4_200_000)
    ]


async def test_nobody_pays_with_anothers_card_or_sees_anothers_payment(
    up: Up, app: aiohttp.ClientSession
) -> None:
    async with app.post(PAY, json=order(up, "bob", 1), headers=up.bearer("carol")) as answer:
        assert answer.status == 403
        assert (await answer.json())["success"] is False
    async with app.post(PAY, json=order(up, "bob", 1)) as answer:
        assert answer.status == 401
    async with app.post(PAY, json=order(up, "dan", 2), headers=up.bearer("dan")) as answer:
        path = (await answer.json())["statusUrl"]
    for user, status in (("carol", 404), ("dan", 200), ("cafe-owner", 200), ("operator", 200)):
        async with app.get(path, headers=up.bearer(user)) as answer:
            assert answer.status == status, user


async def test_the_same_idempotency_key_is_one_payment(up: Up, app: aiohttp.ClientSession) -> None:
    headers = {**up.bearer("erin"), "Idempotency-Key": "order-77"}
    ids = []
    for _ in range(2):
        async with app.post(PAY, json=order(up, "erin", 3_000_000), headers=headers) as answer:
            assert answer.status == 200
            first = await answer.json()
            ids.append(first["transactionId"])
    assert ids[0] == ids[1]
    async with app.post(PAY, json=order(up, "erin", 3_000_001), headers=headers) as answer:
        assert answer.status == 409
    await completed(up, app, "erin", first["statusUrl"])
    spent = START_BALANCE_UNITS - up.chain.balance_of(up.card("erin")["account"])
    assert spent == 3_000_000


async def test_a_tap_from_another_window(up: Up) -> None:
    code, paid = await up.tap("alice", "--amount", "12.50", "--settle")
    assert (code, paid["outcome"]) == (0, "approved")
    assert up.chain.node.call("eth_getTransactionReceipt", paid["txHash"])["status"] == "0x1"
    assert set(paid["lights"]) == {"light1", "light2", "light3", "light4", "red", "amber"}
    assert paid["display"].strip()
    code, torn = await up.tap("carol", "--amount", "1.00", "--tear-after-apdus", "1")
    assert (code, torn["event"]) == (1, "try_again")
    code, declined = await up.tap("poor", "--amount", "1.00")  # the next customer
    assert (code, declined["outcome"]) == (1, "declined")


async def test_a_tap_with_faults_around_it_is_charged_in_the_end(up: Up) -> None:
    listed = await asyncio.to_thread(run_warm, "taprail-sim", "faults", "--json")
    known = json.loads(listed.stdout)
    for card, fault in (("frank", "replies_lost"), ("heidi", "unplugged"), ("ivan", "power_cut")):
        assert known[fault]["about"]
        code, tapped = await up.tap(card, "--amount", "1.10", "--fault", fault, "--seed", "3")
        assert (code, tapped["outcome"]) == (0, "approved"), fault


async def test_an_apps_payment_from_another_window(up: Up) -> None:
    pay = ("taprail-sim", "pay", "--json", "--state-dir", up.where["stateDir"])
    done = await asyncio.to_thread(run_warm, *pay, "judy", "--amount", "2.50", "--settle")
    assert done.returncode == 0, done.stderr
    paid = json.loads(done.stdout)
    assert (paid["outcome"], paid["status"]) == ("approved", "completed")
    assert up.chain.node.call("eth_getTransactionReceipt", paid["txHash"])["status"] == "0x1"
    done = await asyncio.to_thread(run_warm, *pay, "poor", "--amount", "2.50")
    assert (done.returncode, json.loads(done.stdout)["reasonCode"]) == (1, "insufficient_balance")


async def test_operators_and_technicians_look_into_it_while_it_runs(up: Up) -> None:
    _, paid = await up.tap("grace", "--amount", "2.00", "--settle")
    admin = ("taprail", "admin", "--config", up.where["config"])
    listed = await asyncio.to_thread(run_warm, *admin, "payment", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    by_id = {row["id"]: row for row in json.loads(listed.stdout)}
    row = by_id[paid["transactionId"]]
    assert (row["state"], row["tx_hash"]) == ("completed", paid["txHash"])
    checked = await asyncio.to_thread(run_warm, *admin, "check", "--json")
    assert checked.returncode == 0, checked.stdout
    assert json.loads(checked.stdout)["ok"]
    diag = ("taprail", "diag", "--port", up.where["console"])
    tested = await asyncio.to_thread(run_warm, *diag, "selftest", "--json")
    assert tested.returncode == 0, tested.stdout
    assert all(check["ok"] for check in json.loads(tested.stdout)["data"]["checks"])


async def test_the_cookbook_runs_as_it_stands(up: Up, tmp_path: Path) -> None:
    assert MODULES.is_dir(), "the app's packages are not here: run `.ci/setup app`"
    (tmp_path / "node_modules").symlink_to(MODULES)  # Node looks for packages from where it is
    await asyncio.to_thread(fill_float, up)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        hook_port = probe.getsockname()[1]
    programs = [str(Path(sys.executable).parent), str(Path(find_node()).parent)]
    where = {
        "GATEWAY": up.where["gatewayUrl"],
        "CONFIG": up.where["config"],
        "HOOK_PORT": str(hook_port),
        "PATH": ":".join([*programs, os.environ["PATH"]]),
    }
    bash = await asyncio.create_subprocess_exec(
        *("bash", "-c", cookbook.script()),
        cwd=tmp_path,
        env={**os.environ, **where},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(COOKBOOK_TIMEOUT_S):
            told, _ = await bash.communicate()
    finally:
        if bash.returncode is None:
            os.killpg(bash.pid, signal.SIGKILL)
    text = told.decode()
    assert bash.returncode == 0, text
    for said in (
        "card completed",
        "paid 2000000 0x",
        "payment.completed 0x",
        "single_limit Amount",
    ):
        assert said in text, text


async def test_ctrl_c_ends_everything_and_the_next_one_goes_on(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    state_dir = tmp_path_factory.mktemp("u")
    async with running(state_dir) as first:
        _, paid = await first.tap("alice", "--amount", "7.00", "--settle")
        account = first.card("alice")["account"]
        await first.interrupt()
    async with running(state_dir) as second:
        assert second.where["token"] == first.where["token"]
        assert second.card("alice") == first.card("alice")
        assert second.chain.balance_of(account) == START_BALANCE_UNITS - 7_000_000
        url = f"{second.where['gatewayUrl']}/api/payment/status/{paid['transactionId']}"
        async with (
            aiohttp.ClientSession() as app,
            app.get(url, headers=second.bearer("alice")) as answer,
        ):
            assert (await answer.json())["transaction"]["txHash"] == paid["txHash"]
        code, again = await second.tap("alice", "--amount", "7.00", "--settle")
        assert (code, again["outcome"]) == (0, "approved")
        assert second.chain.balance_of(account) == START_BALANCE_UNITS - 14_000_000
        await second.interrupt()


async def test_on_a_chain_that_is_there(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with DevChain() as chain:
        token = await asyncio.to_thread(chain.deploy_token, "Other Dollar", "OUSD", "2")
        where = ["--rpc-url", chain.rpc_url, "--token", token]
        where += ["--multicall", chain.multicall_address]
        async with running(tmp_path_factory.mktemp("u"), *where) as up:
            assert (up.where["rpcUrl"], up.where["token"]) == (chain.rpc_url, token)
            code, paid = await up.tap("bob", "--amount", "5.00", "--settle")
            assert (code, paid["outcome"]) == (0, "approved")
            await up.interrupt()
        (moved,) = chain.transfers(to=MERCHANT_ACCOUNT)
        assert (moved.amount_units, moved.transaction_hash) == (5_000_000, paid["txHash"])
