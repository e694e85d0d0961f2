"""At start: is the rewards contract there, and may our wallets mint?

A contract that is not there, or a wallet that was never granted the right, is a set-up that is not
finished: it ends the start with what to do. A right that was taken away later is not: it stops the
rewards and raises an alert (see `rewards`), and must not keep payments from being settled.
"""

from __future__ import annotations

from collections.abc import Sequence

from taprail_common.errors import OperatorError
from taprail_gateway.ledger.queries import Lane
from taprail_gateway.settle import calls, mint_calls, replies
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.errors import ChainError, SendClass, classify


async def check_rewards(chain: Chain, contract: str, lanes: Sequence[Lane]) -> None:
    """Raise OperatorError unless everything is set up to reward; ChainError when no node answers.

    `lanes` are all of the ledger's.
    """
    (code,) = await chain.read([("eth_getCode", [contract, "latest"])], replies.data_bytes)
    if not code:
        raise OperatorError(
            f"there is no contract at the rewards address {contract}",
            fix="deploy RewardPoints there, or check rewards.contract and chain_id",
        )
    wallets = [lane for lane in lanes if lane.purpose == "rewards"]
    if not wallets:
        raise OperatorError(
            "the ledger has no wallet to mint rewards from",
            fix="make one: taprail admin lane add --purpose rewards",
        )
    for lane in wallets:
        may_mint = await is_minter(chain, contract, lane.address)
        if not may_mint and lane.next_nonce is None:
            raise OperatorError(
                f"the wallet {lane.address} is no minter of the rewards contract {contract}",
                fix=f"have the contract's owner call setMinter({lane.address}, true)",
            )


async def is_minter(chain: Chain, contract: str, address: str) -> bool:
    """Whether an address may mint; OperatorError when the contract knows no such question."""
    return await _word(chain, contract, mint_calls.is_minter(address)) == 1


async def owner_of(chain: Chain, contract: str) -> str:
    """Who may say who mints; OperatorError when the contract knows no such question."""
    return f"0x{await _word(chain, contract, mint_calls.OWNER):040x}"


async def _word(chain: Chain, contract: str, data: bytes) -> int:
    try:
        word = await chain.view(contract, data)
    except ChainError as exc:
        if classify(exc.reply) is SendClass.PERMANENT:  # the call reverts: no such function
            raise _no_rewards(contract) from exc
        raise
    if len(word) != 32:
        raise _no_rewards(contract)
    return calls.decode_uint(word)


def _no_rewards(contract: str) -> OperatorError:
    return OperatorError(
        f"the contract at {contract} is no RewardPoints", fix="check rewards.contract and chain_id"
    )
