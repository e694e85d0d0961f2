"""Gives each peer the same transfers on a fresh node of the same kind, and judges by the chain.

A payment counts when its `Transfer` is in a block: what a peer says of itself is not asked. Each is
run twice: straight at the node for the rate, then shorter, through a proxy that counts RPC calls.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from eth_utils.address import to_checksum_address

from taprail_hwsim.anvil import AnvilOptions
from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.dev_chain import DevChain
from tests.bench.peers import authorizations, program
from tests.bench.peers.program import Peer
from tests.bench.scenario import Bench, BenchError, Results
from tests.support import eip3009
from tests.support.rpc_proxy import SEND, running_proxy

_WEB3: Final = "tests.bench.peers.web3_peer"
PEERS: Final = (
    Peer("web3_wait", (_WEB3, "wait"), payments=8, counted=3, concurrency=1),
    Peer("web3_gather", (_WEB3, "gather"), payments=4_000, counted=500),
    Peer("ethers", ("ethers.mjs",), payments=3_000, counted=500),
    Peer("viem", ("viem.mjs",), payments=4_000, counted=500),
    Peer("x402", ("x402.mjs",), payments=500, counted=200),
)
_BLOCK_TIME_S: Final = 1.0
_WALLET: Final = eip3009.account(1_000)
_WALLET_WEI: Final = 10**24
_GAS_LIMIT: Final = 100_000
"""Of one transfer, which takes 65 k with the dev token and 86 k with USDC."""
_MAX_FEE_WEI: Final = 10**12
"""For the peer that sets its fees once: the base fee rises by an eighth with each full block."""
_PRIORITY_FEE_WEI: Final = 10**9
_SILENT_BLOCKS: Final = 4
"""So many without a payment after a peer has ended: nothing more will come."""


async def measure(bench: Bench) -> Results:
    """`peer.*` of settlement."""
    folder = bench.sub("programs")
    program.furnish(folder)
    bench.say("signing the authorizations")
    async with _fresh_chain() as chain:
        # Every node puts the token at the same address, so one signing serves all.
        most = max(peer.payments for peer in PEERS)
        signed = await asyncio.to_thread(authorizations.sign_payments, chain, most)
    results: Results = {}
    for peer in PEERS:
        bench.say(f"{peer.name}: {peer.payments:,} payments")
        results |= await _rate(peer, signed[: peer.payments], folder)
        bench.say(f"{peer.name}: counting its calls")
        results |= await _calls(peer, signed[: peer.counted], folder)
    return results


async def _rate(peer: Peer, payments: list[dict[str, Any]], folder: Path) -> Results:
    async with _fresh_chain() as chain, BlockWatch(chain.rpc_url) as watch:
        await program.run(peer, _job(chain, peer, payments), folder)
        mined = await _mined(chain, watch, len(payments))
    if not mined:
        raise BenchError(f"{peer.name} settled nothing: {program.last_words(peer, folder)}")
    results = {f"peer.{peer.name}_per_s": steady_rate(mined, watch.arrived_s)}
    if lost := len(payments) - mined.total():
        results[f"peer.{peer.name}_lost"] = lost
    return results


async def _calls(peer: Peer, payments: list[dict[str, Any]], folder: Path) -> Results:
    async with (
        _fresh_chain() as chain,
        running_proxy(chain.rpc_url) as proxy,
        BlockWatch(chain.rpc_url) as watch,
    ):
        await program.run(peer, {**_job(chain, peer, payments), "rpcUrl": proxy.url}, folder)
        mined = await _mined(chain, watch, len(payments))
    # Each payment here is a transaction of its own: fewer sends than that, and calls were missed.
    if not 0 < mined.total() <= proxy.calls[SEND]:
        raise BenchError(f"{peer.name}: {proxy.calls[SEND]} sends for {mined.total()} payments")
    return {f"peer.{peer.name}_rpc_per_payment": proxy.calls.total() / mined.total()}


async def _mined(chain: DevChain, watch: BlockWatch, wanted: int) -> Counter[int]:
    """Payments by block as the chain shows them, once all are there or nothing more comes."""
    mined: Counter[int] = Counter()
    silent = 0
    while mined.total() < wanted and silent < _SILENT_BLOCKS:
        await watch.next_block()
        known = mined.total()
        transfers = await asyncio.to_thread(chain.transfers, authorizations.MERCHANT)
        mined = Counter(each.block_number for each in transfers if each.nonce is not None)
        silent = silent + 1 if mined.total() == known else 0
    return mined


def steady_rate(mined: Mapping[int, int], arrived_s: Mapping[int, float]) -> float:
    """Payments per second between the first and the last block that hold any.

    Those two are partly empty and are left out: what remains is work without a pause. Raises
    BenchError when nothing remains.
    """
    first, last = min(mined, default=0), max(mined, default=0)
    if last - first < 2:
        raise BenchError("too few blocks to tell a rate: give the peer more payments")
    whole = sum(count for number, count in mined.items() if first < number < last)
    return whole / (arrived_s[last - 1] - arrived_s[first])


@asynccontextmanager
async def _fresh_chain() -> AsyncIterator[DevChain]:
    async with DevChain(AnvilOptions(block_time_s=_BLOCK_TIME_S)) as chain:
        chain.deploy_token()
        authorizations.fill_purses(chain)
        chain.fund(_WALLET.address, _WALLET_WEI)
        yield chain


def _job(chain: DevChain, peer: Peer, payments: list[dict[str, Any]]) -> dict[str, Any]:
    domain = eip3009.domain(chain)
    return {
        "rpcUrl": chain.rpc_url,
        "chainId": chain.chain_id,
        "blockTimeMs": round(_BLOCK_TIME_S * 1000),
        "token": to_checksum_address(chain.token_address),
        "tokenName": domain["name"],
        "tokenVersion": domain["version"],
        "abi": authorizations.ABI,
        "secret": "0x" + bytes(_WALLET.key).hex(),
        "gasLimit": _GAS_LIMIT,
        "maxFeeWei": _MAX_FEE_WEI,
        "priorityFeeWei": _PRIORITY_FEE_WEI,
        "concurrency": peer.concurrency,
        "payments": payments,
    }
