"""The dev chain: a real EVM node (anvil) with a stablecoin and Multicall3 on it.

Answers for set-up, for the switches that tests turn (mine, reorg, pause), and for reading balances
and transfers straight from the node, independent of the gateway. It holds no keys: its own
transactions come from the node's unlocked accounts. Methods block for some milliseconds; from a
coroutine whose loop also serves the node's URL (a proxy), call them through `asyncio.to_thread`.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, ClassVar, Self

from taprail_hwsim import abi
from taprail_hwsim.anvil import Anvil, AnvilOptions
from taprail_hwsim.contracts import load_artifact
from taprail_hwsim.published import Published
from taprail_hwsim.rpc import JsonRpc
from taprail_hwsim.transfers import Transfer, read_transfers

# Where Multicall3 lives on every large chain, https://www.multicall3.com
MULTICALL3_ADDRESS = "0xcA11bde05977b3631167028862bE2a173976CA11"

# A deployment takes 1.4 M, a mint 0.06 M; explicit, because an estimate would be one more call.
_DEPLOY_GAS = 4_000_000
_MINT_GAS = 100_000
DEFAULT_SEND_GAS = 1_000_000
_RECEIPT_TIMEOUT_S = 30.0
_RECEIPT_POLL_S = 0.02
_BATCH_CALLS = 200


class DevChainError(Exception):
    """The dev chain cannot do what was asked, or a transaction of its own set-up failed."""


class DevChain:
    """A node of our own (`with`, `async with`, or start/stop) or an existing one (`attach`)."""

    published: ClassVar[Published] = Published()
    """Files of published contracts that a dev chain uses instead of its own, unless it is given
    others."""

    def __init__(
        self,
        options: AnvilOptions | None = None,
        *,
        token_address: str | None = None,
        published: Published | None = None,
    ) -> None:
        self._anvil: Anvil | None = Anvil(options or AnvilOptions())
        self._published = published or self.published
        self._node: JsonRpc | None = None
        self._token_address = token_address
        self._multicall_address = MULTICALL3_ADDRESS

    @classmethod
    def attach(cls, rpc_url: str, token: str | None, multicall: str = MULTICALL3_ADDRESS) -> Self:
        """Use a chain that runs already. Its process is not ours: it cannot be paused or killed."""
        chain = cls(token_address=token)
        chain._anvil = None
        chain._node = JsonRpc(rpc_url)
        chain._multicall_address = multicall
        return chain

    # --- life of the node -------------------------------------------------------------------

    def start(self) -> Self:
        """Start the node and put Multicall3 on it. Raises AnvilError or ToolMissingError."""
        anvil = self._own_anvil()
        anvil.spawn()
        anvil.wait_ready()
        return self._furnish(anvil.rpc_url)

    def stop(self) -> None:
        """Stop the node if it is ours; writes the state file, if one was asked for."""
        if self._anvil is not None:
            self._anvil.stop()

    def kill(self) -> None:
        """SIGKILL: nothing is saved."""
        self._own_anvil().kill()

    def pause(self) -> None:
        """A node that hangs: it takes connections and never answers."""
        self._own_anvil().pause()

    def resume(self) -> None:
        """End a pause."""
        self._own_anvil().resume()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def start_async(self) -> Self:
        """`start` without holding up the event loop; after a stop it goes on from its state."""
        anvil = self._own_anvil()
        anvil.spawn()
        await anvil.wait_ready_async()
        return self._furnish(anvil.rpc_url)

    @property
    def is_ours(self) -> bool:
        """Whether the node's process is ours, to be paused and stopped."""
        return self._anvil is not None

    async def __aenter__(self) -> Self:
        return await self.start_async()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- where things are ---------------------------------------------------------------------

    @property
    def node(self) -> JsonRpc:
        """The JSON-RPC client. Raises DevChainError before `start`."""
        if self._node is None:
            raise DevChainError("the dev chain has not been started")
        return self._node

    @property
    def rpc_url(self) -> str:
        """The node's URL."""
        return self.node.url

    @property
    def chain_id(self) -> int:
        """The chain id that the node reports."""
        return int(self.node.call("eth_chainId"), 16)

    @property
    def token_address(self) -> str:
        """The token in use. Raises DevChainError before `deploy_token`."""
        if self._token_address is None:
            raise DevChainError("no token on this chain yet: call deploy_token()")
        return self._token_address

    @property
    def multicall_address(self) -> str:
        """Where Multicall3's code is."""
        return self._multicall_address

    @property
    def accounts(self) -> list[str]:
        """The node's unlocked accounts; the first deploys and mints."""
        addresses: list[str] = self.node.call("eth_accounts")
        return addresses

    # --- money --------------------------------------------------------------------------------

    def deploy_token(
        self,
        name: str = "Dev Dollar",
        symbol: str = "DUSD",
        version: str = "1",
        decimals: int = 6,
    ) -> str:
        """Put a token on the chain, make it the one in use, and return its address.

        A DevToken; or, where nothing but the symbol is asked for, the published one if that is
        given.
        """
        owner = self.accounts[0]
        if (name, version, decimals) == ("Dev Dollar", "1", 6):
            token = self._published.deploy_token(self._transact, owner, symbol)
            if token is not None:
                self._token_address = token
                return token
        arguments = abi.encode_values(
            ["string", "string", "uint8", "string", "address"],
            [name, symbol, decimals, version, owner],
        )
        code = load_artifact("DevToken").bytecode + arguments.hex()
        [receipt] = self._transact(owner, [{"data": code, "gas": hex(_DEPLOY_GAS)}])
        self._token_address = str(receipt["contractAddress"])
        return self._token_address

    def mint(self, address: str, amount_units: int) -> None:
        """Create tokens for an address; mined when this returns."""
        self.mint_all({address: amount_units})

    def mint_all(self, amounts_units: Mapping[str, int]) -> None:
        """Create tokens for many addresses in few round trips; mined when this returns."""
        mints = [
            {
                "to": self.token_address,
                "data": abi.encode_call("mint(address,uint256)", address, amount_units),
                "gas": hex(_MINT_GAS),
            }
            for address, amount_units in amounts_units.items()
        ]
        self._transact(self.accounts[0], mints)

    def fund(self, address: str, wei: int) -> None:
        """Set an address's balance of the chain's own coin."""
        self.node.call("anvil_setBalance", address, hex(wei))

    def token_symbol(self) -> str:
        """What the token calls itself, like DUSD."""
        return abi.decode_string(self._view("symbol()"))

    def token_decimals(self) -> int:
        """Digits after the point of the token's amounts."""
        return abi.decode_uint(self._view("decimals()"))

    def balance_of(self, address: str) -> int:
        """Token units of an address at the latest block."""
        return abi.decode_uint(self._view("balanceOf(address)", address))

    def is_nonce_used(self, authorizer: str, nonce: str) -> bool:
        """The token's authorizationState: used *or* cancelled."""
        signature = "authorizationState(address,bytes32)"
        return bool(abi.decode_uint(self._view(signature, authorizer, nonce)))

    def send(
        self, sender: str, to: str, data: str, *, gas: int = DEFAULT_SEND_GAS
    ) -> dict[str, Any]:
        """Call a contract as an unlocked account; the receipt, mined, be it a success or not."""
        [receipt] = self._send_all(sender, [{"to": to, "data": data, "gas": hex(gas)}])
        return receipt

    def transfers(self, to: str | None = None, from_block: int = 0) -> list[Transfer]:
        """What the chain says was moved, in its order; `to` keeps only one recipient's."""
        every = read_transfers(self.node, self.token_address, from_block)
        return [item for item in every if to is None or item.recipient == to.lower()]

    # --- blocks and time ----------------------------------------------------------------------

    def block_number(self) -> int:
        """The latest block's number."""
        return int(self.node.call("eth_blockNumber"), 16)

    def block_time_s(self) -> int:
        """The latest block's time: what the token holds authorizations against."""
        return int(self.node.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def mine(self, blocks: int = 1) -> None:
        """Make blocks now, besides those that come by themselves."""
        self.node.call("anvil_mine", hex(blocks))

    def advance_time(self, seconds: int) -> None:
        """Put the chain's clock forward, for good, and mine a block that shows it."""
        self.node.call("evm_increaseTime", hex(seconds))
        self.mine()

    def reorg(self, depth: int) -> None:
        """Replace the last blocks by empty ones. Their transactions leave the pool as well."""
        self.node.call("anvil_reorg", depth, [])

    def set_next_block_base_fee(self, wei: int) -> None:
        """Base fee per gas of the next block. A sharp rise drops what can no longer pay it."""
        self.node.call("anvil_setNextBlockBaseFeePerGas", hex(wei))

    @contextlib.contextmanager
    def isolated(self) -> Iterator[Self]:
        """Undo, at the end, all that happened on the chain meanwhile; pending transactions too."""
        token_address = self._token_address
        offset_s = self._clock_offset_s()
        snapshot = self.node.call("evm_snapshot")
        try:
            yield self
        finally:
            self.node.call("anvil_dropAllTransactions")
            with self._no_block_by_itself():
                if not self.node.call("evm_revert", snapshot):
                    raise DevChainError("the node did not take its snapshot back")
            # anvil also takes its clock back to the snapshot and lets it run on from there, behind
            # the real time by as long as the block took; every later signature would be too early.
            self.node.call("evm_increaseTime", offset_s - self._clock_offset_s())
            self.mine()
            self._token_address = token_address

    # --- inner --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _no_block_by_itself(self) -> Iterator[None]:
        """A block that anvil makes while it takes a snapshot back leaves holes: numbers below the
        head for which it has no block any more. Of intervals under a second it tells nothing."""
        interval_s = self.node.call("anvil_getIntervalMining")
        if not interval_s:
            yield
            return
        self.node.call("evm_setIntervalMining", 0)
        try:
            yield
        finally:
            self.node.call("evm_setIntervalMining", interval_s)

    def _own_anvil(self) -> Anvil:
        if self._anvil is None:
            raise DevChainError("this chain was attached to: its process is not ours")
        return self._anvil

    def _furnish(self, rpc_url: str) -> Self:
        self._node = JsonRpc(rpc_url)
        code = self._published.multicall_code() or load_artifact("DevMulticall3").deployed_bytecode
        self._node.call("anvil_setCode", self._multicall_address, code)
        return self

    def _clock_offset_s(self) -> int:
        """How far the chain's clock is ahead of the machine's."""
        return int(self.node.call("evm_increaseTime", 0))

    def _view(self, signature: str, *values: abi.Value) -> str:
        call = {"to": self.token_address, "data": abi.encode_call(signature, *values)}
        result: str = self.node.call("eth_call", call, "latest")
        return result

    def _transact(self, sender: str, transactions: list[dict[str, str]]) -> list[dict[str, Any]]:
        """As `_send_all`, for set-up, which must succeed."""
        receipts = self._send_all(sender, transactions)
        if any(receipt["status"] != "0x1" for receipt in receipts):
            raise DevChainError("a set-up transaction reverted")
        return receipts

    def _send_all(self, sender: str, transactions: list[dict[str, str]]) -> list[dict[str, Any]]:
        """Send from an unlocked account in order, mine, and return the receipts."""
        # Counted here: anvil runs a batch in parallel and would give one nonce to several.
        nonce = int(self.node.call("eth_getTransactionCount", sender, "pending"), 16)
        numbered = [
            {**transaction, "from": sender, "nonce": hex(number)}
            for number, transaction in enumerate(transactions, start=nonce)
        ]
        receipts = []
        for at in range(0, len(numbered), _BATCH_CALLS):
            part = numbered[at : at + _BATCH_CALLS]
            hashes = self.node.batch([("eth_sendTransaction", [item]) for item in part])
            receipts += self._wait_mined(hashes)
        return receipts

    def _wait_mined(self, hashes: list[str]) -> list[dict[str, Any]]:
        wanted = [("eth_getTransactionReceipt", [it]) for it in hashes]
        deadline = time.monotonic() + _RECEIPT_TIMEOUT_S
        while True:
            self.mine()
            receipts = self.node.batch(wanted)
            if all(receipts):
                return receipts
            if time.monotonic() > deadline:
                raise DevChainError("transactions of the set-up were not mined in time")
            time.sleep(_RECEIPT_POLL_S)
