"""Before the first start with a rewards contract: is it there, and may our wallets mint?

What is not finished then ends the start with what to do. Once it was, that is noted, and no start
asks again: a contract that has gone since, or a right that was taken away, stops the rewards with
an alert (see `rewards`) and must not keep payments from being settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from sqlalchemy import Connection, delete, insert

from taprail_common.errors import OperatorError
from taprail_gateway.ledger import queries
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.queries import Lane
from taprail_gateway.ledger.schema import meta
from taprail_gateway.settle import calls, mint_calls, replies
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.errors import ChainError, SendClass, classify

_CHECKED: Final = "rewards:checked"
"""In the ledger's table of facts: the contract that was found in order."""


async def check_once(ledger: Ledger, chain: Chain, contract: str) -> None:
    """Check a contract that this ledger has not rewarded by yet; raises as `check_rewards`."""
    if (await ledger.read(queries.facts)).get(_CHECKED) == contract:
        return
    await check_rewards(chain, contract, await ledger.read(queries.all_lanes))
    await ledger.write(partial(_note, contract=contract))


def _note(connection: Connection, *, contract: str) -> None:
    connection.execute(delete(meta).where(meta.c.key == _CHECKED))
    connection.execute(insert(meta).values(key=_CHECKED, value=contract))


async def check_rewards(chain: Chain, contract: str, lanes: Sequence[Lane]) -> None:
    """Raise OperatorError unless everything is set up to reward; ChainError when no node answers.

    `lanes` are all of the ledger's.
    """
    (code,) = await chain.read([("eth_getCode", [contract, "latest"])], replies.data_bytes)
    if not code:
        raise OperatorError(
            f"there is no contract at the rewards address {contract}",
            fix="check rewards.contract and chain_id, or deploy one: taprail admin reward deploy",
        )
    wallets = [lane.address for lane in lanes if lane.purpose == "rewards"]
    if not wallets:
        raise OperatorError(
            "the ledger has no wallet to mint rewards from",
            fix="make one: taprail admin lane add --purpose rewards",
        )
    for wallet in wallets:
        if not await is_minter(chain, contract, wallet):
            raise OperatorError(
                f"the wallet {wallet} is no minter of the rewards contract {contract}",
                fix="have the contract's owner grant it: taprail admin reward grant",
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
