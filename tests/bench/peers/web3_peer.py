"""web3.py in the two ways one finds it used; a program like the JavaScript peers beside it.

`wait` sends one payment and waits for its receipt before the next; gas and fees are the library's.
`gather` sends so many at a time, counts nonces itself and asks the node for nothing else: gas limit
and fees are given. What `job.mjs` says of its protocol holds here too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from eth_account.signers.local import LocalAccount
from web3 import AsyncWeb3, Web3
from web3.types import Nonce, TxParams, Wei

_UINTS: Final = ("value", "validAfter", "validBefore")
_SHOWN_CHARS: Final = 300


def _arguments(payment: dict[str, Any]) -> list[Any]:
    fields = payment["authorization"]
    numbers = [int(fields[name]) for name in _UINTS]
    signature = [payment["v"], payment["r"], payment["s"]]
    return [fields["from"], fields["to"], *numbers, fields["nonce"], *signature]


def _wait(job: dict[str, Any]) -> None:
    """One after the other."""
    w3 = Web3(Web3.HTTPProvider(job["rpcUrl"]))
    wallet: LocalAccount = Account.from_key(job["secret"])
    token = w3.eth.contract(address=job["token"], abi=job["abi"])
    _ready()
    for payment in job["payments"]:
        move = token.functions.transferWithAuthorization(*_arguments(payment))
        nonce = w3.eth.get_transaction_count(wallet.address)
        unsigned = move.build_transaction({"from": wallet.address, "nonce": nonce})
        signed = wallet.sign_transaction(dict(unsigned))
        sent = w3.eth.send_raw_transaction(signed.raw_transaction)
        w3.eth.wait_for_transaction_receipt(sent)
    _say(done=True)


async def _gather(job: dict[str, Any]) -> None:
    """Many at a time, on one counter of nonces."""
    w3 = AsyncWeb3(AsyncWeb3.AsyncHTTPProvider(job["rpcUrl"]))
    wallet: LocalAccount = Account.from_key(job["secret"])
    token = w3.eth.contract(address=job["token"], abi=job["abi"])
    _ready()
    nonces = itertools.count(await w3.eth.get_transaction_count(wallet.address))
    same: TxParams = {
        "from": wallet.address,
        "chainId": job["chainId"],
        "gas": job["gasLimit"],
        "maxFeePerGas": Wei(job["maxFeeWei"]),
        "maxPriorityFeePerGas": Wei(job["priorityFeeWei"]),
    }

    async def pay(payment: dict[str, Any]) -> None:
        move = token.functions.transferWithAuthorization(*_arguments(payment))
        unsigned = await move.build_transaction({**same, "nonce": Nonce(next(nonces))})
        signed = wallet.sign_transaction(dict(unsigned))
        await w3.eth.send_raw_transaction(signed.raw_transaction)

    waiting = iter(job["payments"])
    await asyncio.gather(*(_work(waiting, pay) for _ in range(job["concurrency"])))
    await w3.provider.disconnect()
    _say(done=True)


async def _work(
    waiting: Iterator[dict[str, Any]], pay: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """One of many at the same queue. A failed payment ends nothing: it is missing on the chain."""
    for payment in waiting:
        try:
            await pay(payment)
        except Exception as exc:  # noqa: BLE001 - a library's errors have no common root
            sys.stderr.write(repr(exc)[:_SHOWN_CHARS] + "\n")


def _ready() -> None:
    _say(ready=True)
    sys.stdin.readline()


def _say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    how, path = sys.argv[1:]
    job_file: dict[str, Any] = json.loads(Path(path).read_text())
    if how == "wait":
        _wait(job_file)
    else:
        asyncio.run(_gather(job_file))
