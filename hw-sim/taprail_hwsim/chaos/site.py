"""The running stack as chaos sees it: a supervisor for the gateway, hands on the node, and the
books of ledger and chain.

Answers for doing and reading; what is done when is drawn by `schedule`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import aiohttp
from sqlalchemy import select

from taprail_common.clock import SystemClock
from taprail_common.crash import EXIT_CODE
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import schema
from taprail_gateway.ledger.database import Ledger
from taprail_hwsim import world as worlds
from taprail_hwsim.chaos.judge import Books
from taprail_hwsim.process import ProgramError
from taprail_hwsim.rpc_proxy import RpcProxy
from taprail_hwsim.stack import LANE_FUNDS_WEI, Stack
from taprail_hwsim.stack_parts import taprail_command
from taprail_hwsim.transfers import Transfer, read_transfers

RESTART_PAUSE_S: Final = 0.5
"""Between two attempts to start the gateway, as a unit's RestartSec."""
UP_TIMEOUT_S: Final = 90.0
LEASE_S: Final = 10.0
"""On a server, what a gateway had that was killed is free for others after so long."""
_BURIED_BLOCKS: Final = 8
"""Over the set-up before anything is done: deeper than the deepest reorg."""
_FINAL_BLOCKS: Final = 32
"""No reorg of ours goes so deep: transfers below are read once."""
_RECONNECT_S: Final = 0.2
_SUBSCRIBE: Final = {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}


class Supervisor:
    """Starts a gateway again whenever it ends, as systemd does."""

    def __init__(self, stack: Stack, number: int) -> None:
        self._stack = stack
        self._number = number
        self._gateway = stack.gateways[number]
        self._crash: str | None = None
        self._down_s = RESTART_PAUSE_S
        self._wanted = False
        self._crashed = asyncio.Event()
        self._up = asyncio.Event()
        self._up.set()
        self.died_at_s = 0.0
        """By the loop's clock, the last time."""
        self.trouble: list[str] = []
        """What nobody wanted: the gateway ended by itself."""

    async def run(self) -> None:
        """For as long as the gateway is wanted."""
        while True:
            code = await self._gateway.ended()
            self._up.clear()
            self._note_death()
            if self._crash is not None and code == EXIT_CODE:
                self._note_crash()
            elif not self._wanted:
                self.trouble.append(self._gateway.obituary(code))
            self._wanted = False
            await self._start_again()

    async def kill(self, down_s: float = RESTART_PAUSE_S, crash: str | None = None) -> None:
        """kill -9; it comes back after a while, with a crash point (`name@hit`) if one is given."""
        await self.up()
        self._wanted, self._down_s, self._crash = True, down_s, crash
        self._crashed.clear()
        self._up.clear()
        await self._gateway.kill()

    async def pause(self, seconds: float) -> None:
        """Let it stand still (SIGSTOP), in the middle of whatever it does, and go on."""
        await self.up()
        self._gateway.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._gateway.send_signal(signal.SIGCONT)
        self._note_death()  # another may have its leases now

    async def crashed(self, timeout_s: float) -> bool:
        """Wait until the armed crash point was hit, so long once it is up; else disarm it.

        Says whether it was hit. Raises ProgramError when it does not come back.
        """
        await self.up()
        try:
            async with asyncio.timeout(timeout_s):
                await self._crashed.wait()
        except TimeoutError:
            await self.kill()
            return False
        return True

    async def up(self) -> None:
        """Wait until it runs; raises ProgramError when it does not come back."""
        try:
            async with asyncio.timeout(UP_TIMEOUT_S):
                await self._up.wait()
        except TimeoutError:
            words = self._gateway.last_words()
            raise ProgramError(
                f"the {self._gateway.name} is not back after {UP_TIMEOUT_S:.0f} s: {words}"
            ) from None

    async def _start_again(self) -> None:
        await asyncio.sleep(self._down_s)
        while True:
            try:
                await self._stack.start_gateway(self._crash, self._number)
            except ProgramError:
                # The node may be away too; and a crash point may lie in the start itself.
                self._note_death()
                if self._crash is not None and self._gateway.exit_code == EXIT_CODE:
                    self._note_crash()
                await asyncio.sleep(RESTART_PAUSE_S)
            else:
                self._up.set()
                return

    def _note_death(self) -> None:
        self.died_at_s = asyncio.get_running_loop().time()

    def _note_crash(self) -> None:
        self._crash = None
        self._down_s = RESTART_PAUSE_S
        self._crashed.set()


class Heads:
    """The newest block's number, as the node announces it, through restarts of the node."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._changed = asyncio.Condition()
        self.number = 0

    async def follow(self) -> None:
        """Listen for ever."""
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError, TypeError):
                    await self._listen(session)
                await asyncio.sleep(_RECONNECT_S)

    async def reach(self, number: int) -> None:
        """Wait until the chain is so long."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.number >= number)

    async def next(self) -> int:
        """Wait for the next block; its number."""
        await self.reach(self.number + 1)
        return self.number

    async def _listen(self, session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(self._site.stack.chain.rpc_url) as socket:
            await socket.send_json(_SUBSCRIBE)
            async for message in socket:
                params = message.json().get("params")
                if params is not None:
                    async with self._changed:
                        self.number = int(params["result"]["number"], 16)
                        self._changed.notify_all()


class Site:
    """Use `open_site`."""

    def __init__(self, stack: Stack, proxy: RpcProxy, ledger: Ledger) -> None:
        self.stack = stack
        self.proxy = proxy
        self.supervisors = [Supervisor(stack, number) for number in range(len(stack.gateways))]
        self.heads = Heads(self)
        self.lanes = worlds.lanes(GatewaySettings.load(stack.gateway_config))
        self.reorg_floor = self.first_block = stack.chain.block_number()
        """Below it there is nothing that could be replaced: the set-up, or a restarted node's."""
        self._ledger = ledger
        self._final: list[Transfer] = []
        self._final_block = self.first_block

    # --- gateways -------------------------------------------------------------------------------

    def supervisor(self, number: int) -> Supervisor:
        """Of some gateway: numbers go round."""
        return self.supervisors[number % len(self.supervisors)]

    async def all_up(self) -> None:
        """Wait until all gateways run; raises ProgramError when one does not come back."""
        for supervisor in self.supervisors:
            await supervisor.up()

    def trouble(self) -> list[str]:
        """What nobody wanted, of all gateways."""
        return [what for supervisor in self.supervisors for what in supervisor.trouble]

    @property
    def lease_s(self) -> float:
        """How long the leases of a gateway that died keep others out at most."""
        return 0.0 if self._ledger.is_exclusive else LEASE_S

    async def leases_end(self) -> None:
        """Wait until the last gateway that died has no lease any more. On a file the next one takes
        them over at once: its lock proves that nobody else can have them."""
        died_at_s = max(supervisor.died_at_s for supervisor in self.supervisors)
        left_s = died_at_s + self.lease_s - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, left_s))

    # --- hands on the node ----------------------------------------------------------------------

    async def node(self, method: str, *params: Any) -> Any:
        """Ask the node itself, past the proxy."""
        return await asyncio.to_thread(self.stack.chain.node.call, method, *params)

    async def fund_lanes(self, wei: int = LANE_FUNDS_WEI) -> None:
        """Set what every sending wallet has."""
        for lane in self.lanes:
            await self.node("anvil_setBalance", lane, hex(wei))

    async def restart_node(self, down_s: float) -> None:
        """SIGTERM, so that it keeps its blocks; it comes back elsewhere, without its pool."""
        chain = self.stack.chain
        await asyncio.to_thread(chain.stop)
        await asyncio.sleep(down_s)
        await chain.start_async()
        self.proxy.node_url = chain.rpc_url
        self.reorg_floor = int(await self.node("eth_blockNumber"), 16)

    # --- books ----------------------------------------------------------------------------------

    async def books(self) -> Books:
        """Where ledger and chain are now."""
        transfers = await asyncio.to_thread(self._transfers)
        return Books(self._states(), transfers, paused_lanes=self._paused_lanes())

    async def audited_books(self) -> Books:
        """The same, with the gateway's own audit: `taprail admin check`."""
        config = str(self.stack.gateway_config)
        process = await asyncio.create_subprocess_exec(
            *taprail_command("admin", "--config", config, "check", "--json"),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        try:
            report = json.loads(output)
        except ValueError:
            raise ProgramError("`taprail admin check` gave no report") from None
        books = await self.books()
        units = report["completedUnits"][worlds.MERCHANT_ID]
        return replace(books, ledger_units=units, invariants_broken=report["problems"])

    def _states(self) -> dict[str, str]:
        columns = schema.payments.c
        query = select(columns.id, columns.state)
        return {
            payment_id: str(state)
            for payment_id, state in self._ledger.read_now(lambda c: c.execute(query).all())
        }

    def _paused_lanes(self) -> dict[str, str]:
        columns = schema.lanes.c
        query = select(columns.address, columns.paused_because).where(
            columns.paused_because.is_not(None)
        )
        return {
            lane: str(why) for lane, why in self._ledger.read_now(lambda c: c.execute(query).all())
        }

    def _transfers(self) -> list[Transfer]:
        chain = self.stack.chain
        found = [
            transfer
            for transfer in read_transfers(
                chain.node, chain.token_address, from_block=self._final_block + 1
            )
            if transfer.recipient == worlds.MERCHANT_ACCOUNT
        ]
        final_block = max(self._final_block, self.heads.number - _FINAL_BLOCKS)
        everything = self._final + found
        self._final += [item for item in found if item.block_number <= final_block]
        self._final_block = final_block
        return everything


@asynccontextmanager
async def open_site(stack: Stack) -> AsyncIterator[Site]:
    """Take a started stack with a proxy into these hands; its set-up is out of a reorg's reach."""
    if stack.proxy is None:
        raise ValueError("chaos needs a stack with a proxy")
    await asyncio.to_thread(stack.chain.mine, _BURIED_BLOCKS)
    settings = GatewaySettings.load(stack.gateway_config)
    async with AsyncExitStack() as exits:
        ledger = Ledger.open(settings.database_url, clock=SystemClock())
        exits.callback(ledger.dispose)
        site = Site(stack, stack.proxy, ledger)
        for work in (*(each.run() for each in site.supervisors), site.heads.follow()):
            task = asyncio.create_task(work)
            exits.push_async_callback(_cancel, task)
        await site.heads.next()
        yield site


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
