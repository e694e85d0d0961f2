"""The dev chain as a process and as the judge: real anvil, real blocks."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from taprail_hwsim import abi
from taprail_hwsim.anvil import AnvilError, AnvilOptions
from taprail_hwsim.dev_chain import DevChain, DevChainError
from taprail_hwsim.node_tools import ToolMissingError, find_anvil
from taprail_hwsim.rpc import JsonRpc, RpcUnreachableError
from taprail_hwsim.transfers import BLOCKS_PER_PAGE
from tests.support.eip3009 import account, authorize, cancel_call_data, nonce

pytestmark = pytest.mark.chain

PAYER, PAYEE = account(1), account(2)
# Long enough for a node that answers, short enough for one that hangs on purpose.
IMPATIENT_S = 0.5
# No block comes but those that the test makes.
BY_HAND = AnvilOptions(block_time_s=3600)


def test_the_judge_names_the_authorization_of_each_transfer(chain: DevChain) -> None:
    chain.mint(PAYER.address, 100)
    chain.mint(chain.accounts[3], 100)
    authorized = authorize(chain, PAYER, PAYEE.address, 30, 1).call_data()
    chain.send(chain.accounts[1], chain.token_address, authorized)
    plain = abi.encode_call("transfer(address,uint256)", PAYEE.address, 4)
    chain.send(chain.accounts[3], chain.token_address, plain)
    cancel = cancel_call_data(chain, PAYER, nonce(2))
    chain.send(chain.accounts[1], chain.token_address, cancel)

    by_authorization, by_hand = chain.transfers(to=PAYEE.address)
    assert by_authorization.nonce == nonce(1)
    assert by_authorization.amount_units == 30
    assert by_authorization.sender == PAYER.address.lower()
    assert by_authorization.recipient == PAYEE.address.lower()
    assert (by_hand.nonce, by_hand.amount_units) == (None, 4)
    assert by_hand.block_number > by_authorization.block_number
    assert chain.transfers(to=PAYEE.address, from_block=by_hand.block_number) == [by_hand]


def test_the_judge_reads_every_page(chain: DevChain) -> None:
    first_block = chain.block_number() + 1
    chain.mint(PAYER.address, 1)
    chain.mine(2 * BLOCKS_PER_PAGE)
    chain.mint(PAYER.address, 2)
    moved = chain.transfers(from_block=first_block)
    assert [transfer.amount_units for transfer in moved] == [1, 2]


def test_the_judge_reads_the_newest_block_too() -> None:
    with DevChain(BY_HAND) as chain:
        chain.deploy_token()
        chain.mint(PAYER.address, 3)
        [newest] = chain.transfers(from_block=chain.block_number())
        assert newest.amount_units == 3


def test_many_mints_in_one_go(chain: DevChain) -> None:
    amounts = {str(account(number).address): number for number in range(1, 301)}
    chain.mint_all(amounts)
    assert {address: chain.balance_of(address) for address in amounts} == amounts


def test_what_happens_in_isolation_is_undone(dev_chain: DevChain) -> None:
    token = dev_chain.token_address
    with dev_chain.isolated():
        dev_chain.mint(PAYER.address, 5)
        dev_chain.advance_time(10_000)
        ahead_s = dev_chain.block_time_s()
        dev_chain.deploy_token("Other")
        assert dev_chain.token_address != token
    assert dev_chain.token_address == token
    assert dev_chain.balance_of(PAYER.address) == 0
    assert dev_chain.block_time_s() < ahead_s - 9_000


def test_isolation_drops_what_is_still_pending() -> None:
    with DevChain(BY_HAND) as chain:
        chain.deploy_token()
        data = abi.encode_call("mint(address,uint256)", PAYER.address, 5)
        send = {"from": chain.accounts[0], "to": chain.token_address, "data": data}
        with chain.isolated():
            chain.node.call("eth_sendTransaction", {**send, "gas": hex(100_000)})
        chain.mine()
        assert chain.balance_of(PAYER.address) == 0


def test_isolation_leaves_the_clock_running() -> None:
    with DevChain(BY_HAND) as chain:
        start_s = chain.block_time_s()
        # The clock is ahead of the last block, as on any chain between two blocks.
        chain.node.call("evm_increaseTime", 1000)
        with chain.isolated():
            chain.advance_time(50_000)
        assert start_s + 1000 <= chain.block_time_s() < start_s + 40_000


def test_blocks_come_on_demand() -> None:
    with DevChain(BY_HAND) as chain:
        chain.mine(3)
        assert chain.block_number() == 3


async def test_blocks_come_by_themselves() -> None:
    async with DevChain(AnvilOptions(block_time_s=0.1)) as chain:
        async with asyncio.timeout(10):
            while chain.block_number() < 3:  # noqa: ASYNC110 - the node has no event to wait for
                await asyncio.sleep(0.05)


def test_base_fee_of_the_next_block() -> None:
    with DevChain(BY_HAND) as chain:
        chain.set_next_block_base_fee(77_000_000_000)
        chain.mine()
        block = chain.node.call("eth_getBlockByNumber", "latest", False)
        assert int(block["baseFeePerGas"], 16) == 77_000_000_000


def test_fund_sets_the_balance_of_gas_money(chain: DevChain) -> None:
    chain.fund(PAYER.address, 10**19)
    assert int(chain.node.call("eth_getBalance", PAYER.address, "latest"), 16) == 10**19


def test_a_reorg_takes_the_payment_back() -> None:
    with DevChain(BY_HAND) as chain:
        chain.deploy_token()
        chain.mint(PAYER.address, 100)
        chain.mint(PAYER.address, 11)
        head = chain.block_number()
        orphan = chain.node.call("eth_getBlockByNumber", hex(head), False)["hash"]
        chain.reorg(1)
        assert chain.balance_of(PAYER.address) == 100
        assert chain.node.call("eth_getBlockByNumber", hex(head), False)["hash"] != orphan
        assert [transfer.amount_units for transfer in chain.transfers()] == [100]


def test_finality_follows_the_head_by_two_blocks() -> None:
    with DevChain(BY_HAND) as chain:
        chain.mine(5)
        final = chain.node.call("eth_getBlockByNumber", "finalized", False)
        assert int(final["number"], 16) == chain.block_number() - 2


def test_a_paused_node_hangs_and_goes_on_after_resume() -> None:
    with DevChain() as chain:
        impatient = JsonRpc(chain.rpc_url, timeout_s=IMPATIENT_S)
        impatient.call("eth_chainId")
        chain.pause()
        with pytest.raises(RpcUnreachableError):
            impatient.call("eth_chainId")
        chain.resume()
        assert chain.chain_id == 31337


def test_a_paused_node_can_be_stopped() -> None:
    with DevChain() as chain:
        chain.pause()
    with pytest.raises(RpcUnreachableError):
        JsonRpc(chain.rpc_url, timeout_s=IMPATIENT_S).call("eth_chainId")


def test_state_survives_a_stop_but_not_a_kill(tmp_path: Path) -> None:
    options = AnvilOptions(state_path=tmp_path / "state.json")
    with DevChain(options) as chain:
        token = chain.deploy_token()
        chain.mint(PAYER.address, 8)
    with DevChain(options, token_address=token) as again:
        assert again.balance_of(PAYER.address) == 8
        again.mint(PAYER.address, 1)
        again.kill()
    with DevChain(options, token_address=token) as after_kill:
        assert after_kill.balance_of(PAYER.address) == 8


def test_two_chains_at_once_do_not_meet(dev_chain: DevChain) -> None:
    with DevChain(AnvilOptions(chain_id=4711)) as other:
        assert other.chain_id == 4711
        assert other.rpc_url != dev_chain.rpc_url
        with pytest.raises(DevChainError, match="deploy_token"):
            _ = other.token_address


async def test_it_works_as_an_async_context() -> None:
    async with DevChain() as chain:
        chain.deploy_token()
        assert chain.transfers() == []
    with pytest.raises(RpcUnreachableError):
        chain.block_number()


def test_an_attached_chain_is_read_but_not_ours_to_kill(dev_chain: DevChain) -> None:
    attached = DevChain.attach(dev_chain.rpc_url, dev_chain.token_address)
    assert attached.chain_id == dev_chain.chain_id
    assert attached.balance_of(PAYER.address) == dev_chain.balance_of(PAYER.address)
    with pytest.raises(DevChainError, match="not ours"):
        attached.kill()
    attached.stop()
    assert dev_chain.block_number() >= 0


def test_the_node_dies_with_whoever_started_it() -> None:
    program = (
        "import os\n"
        "from taprail_hwsim.dev_chain import DevChain\n"
        "print(DevChain().start().rpc_url, flush=True)\n"
        "os._exit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    orphan = JsonRpc(done.stdout.strip(), timeout_s=IMPATIENT_S)
    with pytest.raises(RpcUnreachableError):
        _call_again_and_again(orphan)


def _call_again_and_again(node: JsonRpc) -> None:
    for _ in range(100):  # the kernel's signal is quick, not instant
        node.call("eth_chainId")


def test_a_node_that_does_not_start_is_reported_in_its_own_words(tmp_path: Path) -> None:
    broken_state = tmp_path / "state.json"
    broken_state.write_text("not a state")
    with pytest.raises(AnvilError, match="anvil ended with code"):
        DevChain(AnvilOptions(state_path=broken_state)).start()


def test_using_a_chain_before_its_start_says_so() -> None:
    chain = DevChain()
    with pytest.raises(DevChainError, match="not been started"):
        chain.block_number()
    with pytest.raises(AnvilError, match="not running"):
        chain.pause()
    chain.stop()


def test_a_missing_anvil_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ToolMissingError, match="TAPRAIL_ANVIL names"):
        find_anvil({"TAPRAIL_ANVIL": str(tmp_path / "anvil")})
