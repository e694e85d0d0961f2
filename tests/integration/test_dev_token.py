"""DevToken and DevMulticall3 on a real node, against signatures that eth_account made."""

from dataclasses import replace
from typing import Any

import pytest

from taprail_hwsim import abi
from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.rpc import RpcRefusedError
from taprail_hwsim.transfers import AUTHORIZATION_USED_TOPIC, TRANSFER_TOPIC
from tests.support import eip3009
from tests.support.eip3009 import CURVE_ORDER, Authorization, account, authorize, nonce

pytestmark = pytest.mark.chain

PAYER, PAYEE, STRANGER = account(1), account(2), account(3)
BALANCE_UNITS = 10_000_000
# EIP-3009: keccak256 of "AuthorizationCanceled(address,bytes32)"
CANCELED_TOPIC = "0x1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81"


@pytest.fixture
def funded(chain: DevChain) -> DevChain:
    chain.mint(PAYER.address, BALANCE_UNITS)
    return chain


def pay(chain: DevChain, authorization: Authorization) -> dict[str, Any]:
    return chain.send(chain.accounts[1], chain.token_address, authorization.call_data())


def refusal(
    chain: DevChain, data: str, *, sender: str | None = None, at_s: int | None = None
) -> str:
    """The reason the token gives, in a block at the given time (default: the latest block's)."""
    call = {"from": sender or chain.accounts[1], "to": chain.token_address, "data": data}
    block = {} if at_s is None else {"time": hex(at_s)}
    with pytest.raises(RpcRefusedError) as raised:
        chain.node.call("eth_call", call, "latest", {}, block)
    return raised.value.message


def read(chain: DevChain, signature: str, *values: abi.Value) -> int:
    call = {"to": chain.token_address, "data": abi.encode_call(signature, *values)}
    return abi.decode_uint(chain.node.call("eth_call", call, "latest"))


def test_token_tells_its_domain_as_the_reference_hashes_it(chain: DevChain) -> None:
    chain.deploy_token("Café Dollar", "CAFE", "7", 2)
    assert eip3009.read_string(chain, "name()") == "Café Dollar"
    assert eip3009.read_string(chain, "symbol()") == "CAFE"
    assert eip3009.read_string(chain, "version()") == "7"
    assert read(chain, "decimals()") == 2
    separator = f"0x{read(chain, 'DOMAIN_SEPARATOR()'):064x}"
    assert separator == eip3009.domain_separator(chain)


def test_anyone_may_pass_on_an_authorization_and_it_moves_the_money(funded: DevChain) -> None:
    receipt = pay(funded, authorize(funded, PAYER, PAYEE.address, 2_500_000, 1))
    assert receipt["status"] == "0x1"
    assert funded.balance_of(PAYER.address) == BALANCE_UNITS - 2_500_000
    assert funded.balance_of(PAYEE.address) == 2_500_000
    assert funded.is_nonce_used(PAYER.address, nonce(1))
    assert not funded.is_nonce_used(PAYER.address, nonce(2))


def test_the_used_authorization_is_logged_first_and_then_its_transfer(funded: DevChain) -> None:
    logs = pay(funded, authorize(funded, PAYER, PAYEE.address, 7, 1))["logs"]
    payer, payee = abi.address_topic(PAYER.address), abi.address_topic(PAYEE.address)
    assert [log["topics"] for log in logs] == [
        [AUTHORIZATION_USED_TOPIC, payer, nonce(1)],
        [TRANSFER_TOPIC, payer, payee],
    ]
    assert abi.decode_uint(logs[1]["data"]) == 7


def test_an_authorization_moves_money_only_once(funded: DevChain) -> None:
    authorization = authorize(funded, PAYER, PAYEE.address, 5, 1)
    assert pay(funded, authorization)["status"] == "0x1"
    assert "authorization is used or canceled" in refusal(funded, authorization.call_data())
    assert pay(funded, authorization)["status"] == "0x0"
    assert funded.balance_of(PAYEE.address) == 5


def test_a_cancelled_authorization_never_moves_money(funded: DevChain) -> None:
    authorization = authorize(funded, PAYER, PAYEE.address, 5, 1)
    cancel = eip3009.cancel_call_data(funded, PAYER, nonce(1))
    logs = funded.send(funded.accounts[2], funded.token_address, cancel)["logs"]
    assert [log["topics"] for log in logs] == [
        [CANCELED_TOPIC, abi.address_topic(PAYER.address), nonce(1)]
    ]
    assert funded.is_nonce_used(PAYER.address, nonce(1))
    assert "authorization is used or canceled" in refusal(funded, authorization.call_data())
    assert "authorization is used or canceled" in refusal(funded, cancel)


def test_only_the_authorizer_cancels(funded: DevChain) -> None:
    theirs = eip3009.cancel_call_data(funded, STRANGER, nonce(1))
    forged = theirs.replace(STRANGER.address[2:].lower(), PAYER.address[2:].lower())
    assert "invalid signature" in refusal(funded, forged)


def test_both_time_bounds_are_strict(funded: DevChain) -> None:
    now_s = funded.block_time_s()
    unsigned = replace(
        authorize(funded, PAYER, PAYEE.address, 5, 1),
        valid_after_s=now_s + 100,
        valid_before_s=now_s + 102,
    )
    data = unsigned.signed_by(PAYER, funded).call_data()
    assert "authorization is not yet valid" in refusal(funded, data, at_s=now_s + 100)
    assert "authorization is expired" in refusal(funded, data, at_s=now_s + 102)
    call = {"to": funded.token_address, "data": data}
    assert funded.node.call("eth_call", call, "latest", {}, {"time": hex(now_s + 101)}) == "0x"


def test_an_authorization_expires_on_the_chain(funded: DevChain) -> None:
    authorization = authorize(funded, PAYER, PAYEE.address, 5, 1, valid_for_s=60)
    funded.advance_time(61)
    assert pay(funded, authorization)["status"] == "0x0"
    assert "authorization is expired" in refusal(funded, authorization.call_data())


@pytest.mark.parametrize(
    "change",
    [
        {"amount_units": 6},
        {"recipient": STRANGER.address},
        {"sender": STRANGER.address},
        {"valid_after_s": 1},
        {"valid_before_s": 2**40},
        {"nonce": nonce(9)},
        {"action": "ReceiveWithAuthorization", "recipient": PAYEE.address},
        {"v": 0},
        {"v": 29},
        {"r": 0},
        {"s": 0},
    ],
    ids=",".join,
)
def test_a_signature_holds_for_exactly_what_was_signed(
    funded: DevChain, change: dict[str, Any]
) -> None:
    changed = replace(authorize(funded, PAYER, PAYEE.address, 5, 1), **change)
    assert "invalid signature" in refusal(funded, changed.call_data(), sender=PAYEE.address)


def test_a_zero_authorizer_does_not_pass_with_a_broken_signature(funded: DevChain) -> None:
    zero = "0x" + "00" * 20
    broken = replace(authorize(funded, PAYER, PAYEE.address, 0, 1), sender=zero, r=0)
    assert "invalid signature" in refusal(funded, broken.call_data())


def test_the_other_s_of_a_valid_signature_is_refused(funded: DevChain) -> None:
    signed = authorize(funded, PAYER, PAYEE.address, 5, 1)
    mirrored = replace(signed, s=CURVE_ORDER - signed.s, v=27 + 28 - signed.v)
    assert "invalid signature" in refusal(funded, mirrored.call_data())


def test_a_signature_for_another_token_is_refused(funded: DevChain) -> None:
    elsewhere = authorize(funded, PAYER, PAYEE.address, 5, 1)
    funded.deploy_token()
    funded.mint(PAYER.address, BALANCE_UNITS)
    assert "invalid signature" in refusal(funded, elsewhere.call_data())


def test_nobody_spends_more_than_he_has(funded: DevChain) -> None:
    authorization = authorize(funded, PAYER, PAYEE.address, BALANCE_UNITS + 1, 1)
    assert "transfer amount exceeds balance" in refusal(funded, authorization.call_data())
    assert pay(funded, authorization)["status"] == "0x0"
    assert not funded.is_nonce_used(PAYER.address, nonce(1))


def test_nothing_goes_to_the_zero_address(funded: DevChain) -> None:
    zero = "0x" + "00" * 20
    data = authorize(funded, PAYER, zero, 5, 1).call_data()
    assert "transfer to the zero address" in refusal(funded, data)
    mint = abi.encode_call("mint(address,uint256)", zero, 5)
    assert "mint to the zero address" in refusal(funded, mint, sender=funded.accounts[0])


def test_a_transfer_to_oneself_creates_nothing(funded: DevChain) -> None:
    assert pay(funded, authorize(funded, PAYER, PAYER.address, 5, 1))["status"] == "0x1"
    assert funded.balance_of(PAYER.address) == BALANCE_UNITS


def test_receive_is_for_the_payee_alone(funded: DevChain) -> None:
    payee = funded.accounts[3]
    authorization = authorize(funded, PAYER, payee, 5, 1, action="ReceiveWithAuthorization")
    assert "caller must be the payee" in refusal(funded, authorization.call_data())
    receipt = funded.send(payee, funded.token_address, authorization.call_data())
    assert receipt["status"] == "0x1"
    assert funded.balance_of(payee) == 5


def test_only_the_owner_mints(chain: DevChain) -> None:
    data = abi.encode_call("mint(address,uint256)", STRANGER.address, 1)
    assert "caller is not the owner" in refusal(chain, data)
    assert "overflow" in refusal(_almost_full(chain), data, sender=chain.accounts[0])


def _almost_full(chain: DevChain) -> DevChain:
    chain.mint(PAYER.address, 2**256 - 1 - read(chain, "totalSupply()"))
    return chain


def test_allowance_is_spent_by_transfer_from(chain: DevChain) -> None:
    owner, spender = chain.accounts[4], chain.accounts[5]
    chain.mint(owner, 100)
    approve = abi.encode_call("approve(address,uint256)", spender, 60)
    assert chain.send(owner, chain.token_address, approve)["status"] == "0x1"
    spend = abi.encode_call("transferFrom(address,address,uint256)", owner, PAYEE.address, 40)
    assert chain.send(spender, chain.token_address, spend)["status"] == "0x1"
    assert read(chain, "allowance(address,address)", owner, spender) == 20
    assert "exceeds allowance" in refusal(chain, spend, sender=spender)
    assert chain.balance_of(PAYEE.address) == 40


def five_with_one_bad(chain: DevChain) -> list[tuple[str, str]]:
    """Five payments in a batch; the third one's signature is not the payer's."""
    payments = [authorize(chain, PAYER, PAYEE.address, 10 + i, i) for i in range(5)]
    payments[2] = replace(payments[2], amount_units=99)
    return [(chain.token_address, payment.call_data()) for payment in payments]


def test_one_bad_payment_does_not_take_the_batch_along(funded: DevChain) -> None:
    data = abi.encode_aggregate3(five_with_one_bad(funded))
    call = {"to": funded.multicall_address, "data": data}
    results = abi.decode_aggregate3(funded.node.call("eth_call", call, "latest"))
    assert [result.success for result in results] == [True, True, False, True, True]
    assert abi.decode_revert_reason(results[2].return_data) == "DevToken: invalid signature"

    receipt = funded.send(funded.accounts[1], funded.multicall_address, data)
    assert receipt["status"] == "0x1"
    moved = [
        (transfer.nonce, transfer.amount_units) for transfer in funded.transfers(PAYEE.address)
    ]
    assert moved == [(nonce(i), 10 + i) for i in (0, 1, 3, 4)]


def test_without_allow_failure_all_or_nothing(funded: DevChain) -> None:
    data = abi.encode_aggregate3(five_with_one_bad(funded), allow_failure=False)
    receipt = funded.send(funded.accounts[1], funded.multicall_address, data)
    assert receipt["status"] == "0x0"
    assert funded.transfers(PAYEE.address) == []


def test_receive_cannot_go_through_multicall(funded: DevChain) -> None:
    authorization = authorize(funded, PAYER, PAYEE.address, 5, 1, action="ReceiveWithAuthorization")
    data = abi.encode_aggregate3([(funded.token_address, authorization.call_data())])
    call = {"from": PAYEE.address, "to": funded.multicall_address, "data": data}
    [result] = abi.decode_aggregate3(funded.node.call("eth_call", call, "latest"))
    assert not result.success
    assert abi.decode_revert_reason(result.return_data) == "DevToken: caller must be the payee"


def test_multicall_reads_many_balances_and_the_block(funded: DevChain) -> None:
    multicall = funded.multicall_address
    data = abi.encode_aggregate3(
        [
            (multicall, abi.encode_call("getBlockNumber()")),
            (multicall, abi.encode_call("getCurrentBlockTimestamp()")),
            (multicall, abi.encode_call("getEthBalance(address)", funded.accounts[0])),
            (funded.token_address, abi.encode_call("balanceOf(address)", PAYER.address)),
        ]
    )
    at = hex(funded.block_number())
    results = abi.decode_aggregate3(
        funded.node.call("eth_call", {"to": multicall, "data": data}, at)
    )
    block = funded.node.call("eth_getBlockByNumber", at, False)
    ether = funded.node.call("eth_getBalance", funded.accounts[0], at)
    expected = [int(at, 16), int(block["timestamp"], 16), int(ether, 16), BALANCE_UNITS]
    assert [int.from_bytes(result.return_data) for result in results] == expected
