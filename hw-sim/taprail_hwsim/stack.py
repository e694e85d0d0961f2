"""The whole of TapRail on one machine: chain, gateway and terminal, each a process of its own.

Answers for their order of starting and stopping, for the files of a state folder, and for what a
person does at the counter: put a card, lift it. Nothing of the product runs in this process; the
simulator is only what surrounds it: the copper, the panel, the node.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from taprail_gateway.config import GatewaySettings
from taprail_hwsim import world as worlds
from taprail_hwsim.dev_chain import MULTICALL3_ADDRESS, DevChain
from taprail_hwsim.event_log import Event, EventLog, command
from taprail_hwsim.gateway_wire import GatewayWire
from taprail_hwsim.keypad import Keypad
from taprail_hwsim.null_modem import NullModem
from taprail_hwsim.pads import Pad, Pn532Pad
from taprail_hwsim.panel.remote import RemotePanel
from taprail_hwsim.pcsc import PcscSimulator
from taprail_hwsim.pn532 import Pn532Simulator
from taprail_hwsim.process import Program, ProgramError
from taprail_hwsim.published import Published
from taprail_hwsim.rpc_proxy import RpcProxy
from taprail_hwsim.stack_files import PINS, gateway_toml, terminal_toml
from taprail_hwsim.stack_parts import (
    chain_there,
    own_chain,
    run_tool,
    stop_program,
    taprail_command,
)
from taprail_hwsim.state_lock import locked

LANE_FUNDS_WEI: Final = 100 * 10**18
TAP_TIMEOUT_S: Final = 30.0
SAME_CARD_PAUSE_S: Final = 0.8
"""Nobody taps the same card again sooner: to a terminal, a card that does has never left."""
_STARTING: Final = (None, "out_of_service")
_READ: Final = ("read", "try_again", "card_refused")
_ANSWERED: Final = ("verdict", "unknown", "taken_offline")


@dataclass(frozen=True)
class StackOptions:
    """What to start. A chain that is there is used when `rpc_url` and `token` are given."""

    state_dir: Path
    gateway_port: int = 0
    rpc_url: str | None = None
    token: str | None = None
    multicall: str = MULTICALL3_ADDRESS
    block_time_s: float = 1.0
    rf_delay_ms: float = 0.0
    pad: Pad | None = None
    """A reader that is plugged in already; None: a PN532 of the stack's own."""
    pin_above_units: int | None = None
    """Above it a PIN is asked for, which is typed at `Stack.keypad`; None: no keypad."""
    verdict_timeout_ms: int = 3000
    fixed_amount: str | None = None
    settlement: dict[str, int] = field(default_factory=dict)
    with_terminal: bool = True
    crash_gateway: str | None = None
    """Crash point (`name@hit`) of the gateway's first run."""
    lanes: int = 1
    """Wallets that send payments."""
    gateways: int = 1
    """More than one need a `database_url`. They share their keys; each has a port of its own."""
    database_url: str | None = None
    """An empty database on a PostgreSQL server for the ledger; None: a file in the state folder."""
    published: Published = field(default_factory=Published)
    """Contracts to use on a chain of our own instead of the lean ones."""
    webhooks: bool = False
    """Whether merchants' servers on this machine may be told of payments."""
    gateway_wire: bool = False
    """Whether a wire that can fail lies between terminal and gateway: `Stack.wire`."""
    proxy_seed: int | None = None
    """With a seed, a fault-injecting proxy stands between gateway and node: `Stack.proxy`."""


class Stack:
    """Use as `async with Stack(options) as stack`."""

    def __init__(self, options: StackOptions) -> None:
        self.options = options
        self.state_dir = options.state_dir.resolve()
        self.gateway_config = self.state_dir / "gateway.toml"
        self.terminal_config = self.state_dir / "terminal.toml"
        self.console_path = self.state_dir / "console"
        self.gateway_urls = [""] * options.gateways
        self.world: worlds.World
        self.cards: worlds.CardBox
        self.chain: DevChain
        self.proxy: RpcProxy | None = None
        self._exit = AsyncExitStack()
        self._on_pad = b""
        self._again_at_s: dict[bytes, float] = {}
        self.wire: GatewayWire | None = None
        self.powered = asyncio.Event()
        """Cleared while the terminal's power is cut on purpose."""
        self.pad = options.pad or Pn532Pad(
            self.state_dir, lambda: Pn532Simulator(rf_delay_ms=options.rf_delay_ms)
        )
        self._modem = NullModem(self.state_dir / "console-device", self.console_path)
        self.keypad = Keypad(self.state_dir / "keypad")
        self.panel = RemotePanel(self.state_dir / "panel.sock", PINS)
        self.log = EventLog(self.control_socket)
        self.gateways = [self._gateway_program(number) for number in range(options.gateways)]
        self.terminal = Program(
            "terminal",
            [
                *(sys.executable, "-m", "taprail_hwsim.terminal_process"),
                *("--config", str(self.terminal_config)),
                *("--panel", str(self.state_dir / "panel.sock")),
                *(["--keypad"] if options.pin_above_units is not None else []),
            ],
            self.state_dir / "terminal.log",
            self.pad.environment,
        )

    @property
    def reader(self) -> Pn532Simulator | PcscSimulator:
        """What is plugged in now."""
        return self.pad.simulator

    @property
    def gateway(self) -> Program:
        """The first of them, and mostly the only one."""
        return self.gateways[0]

    @property
    def gateway_url(self) -> str:
        """Where the first one is; empty before it has started."""
        return self.gateway_urls[0]

    @property
    def control_socket(self) -> Path:
        return self.state_dir / "terminal" / "control.sock"

    # --- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Stack:
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    async def _start(self) -> None:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._exit.enter_context(locked(self.state_dir))
        self._refuse_half_made()
        self.chain = await self._exit.enter_async_context(_chain(self.options, self.state_dir))
        if self.options.proxy_seed is not None:
            proxy = RpcProxy(self.chain.rpc_url, seed=self.options.proxy_seed)
            self.proxy = await self._exit.enter_async_context(proxy)
        await self._find_or_make_world()
        for number, gateway in enumerate(self.gateways):
            self._exit.push_async_callback(stop_program, gateway)
            await self.start_gateway(None if number else self.options.crash_gateway, number)
        if not self.options.with_terminal:
            return
        if self.options.pad is None:
            self.pad.plug_in()
            self._exit.callback(self.pad.unplug)
        self._exit.enter_context(self._modem)
        if self.options.pin_above_units is not None:
            self._exit.enter_context(self.keypad)
        if self.options.gateway_wire:
            self.wire = await self._exit.enter_async_context(GatewayWire(self.gateway_url))
        self._write_terminal_config()
        await self.panel.start()
        self._exit.push_async_callback(self.panel.close)
        self._exit.push_async_callback(stop_program, self.terminal)
        await self.start_terminal()

    async def start_gateway(self, crash: str | None = None, number: int = 0) -> None:
        """Start it, on the same port as before; `crash` names a crash point (`name@hit`)."""
        ready = await self.gateways[number].start({"TAPRAIL_CRASH": crash or ""})
        if not self.gateway_urls[number]:
            self.gateway_urls[number] = str(ready["url"])
            self._write_gateway_config(number, port=int(ready["port"]))

    async def start_terminal(self, crash: str | None = None) -> None:
        """Start it, follow what it says, and wait until its reader is open."""
        await self.terminal.start({"TAPRAIL_CRASH": crash or ""})
        self.powered.set()
        mark = self.log.position
        await self.log.follow()
        self._exit.push_async_callback(self.log.close)
        await self.log.wait_for("view", since=mark, where=lambda e: e.get("phase") not in _STARTING)

    async def cut_power(self) -> None:
        """The terminal's power goes, and comes back."""
        self.powered.clear()
        await self.terminal.kill()
        await self.start_terminal()

    # --- at the counter -------------------------------------------------------------------------

    async def arm(self, amount: str) -> None:
        """What a till does: ask for an amount, as decimal text; an older one that nobody has paid
        is taken back."""
        arming = {"command": "arm", "amount": amount}
        answer = await command(self.control_socket, **arming)
        if answer.get("code") == "terminal_busy":
            await command(self.control_socket, command="cancel")
            answer = await command(self.control_socket, **arming)
        if not answer.get("ok"):
            raise ProgramError(f"the terminal refused the amount: {answer.get('error')}")

    async def tap(
        self,
        card: str,
        amount: str | None = None,
        *,
        tear_after_apdus: int | None = None,
        lift: bool = True,
    ) -> Event:
        """Put a card, wait until the terminal has made up its mind, lift it. Gives that event."""
        on_table = self.cards[card]
        await asyncio.sleep(max(0.0, self._again_at_s.get(on_table.uid, 0.0) - time.monotonic()))
        if amount is not None:
            await self.arm(amount)
        mark = self.log.position
        self._on_pad = on_table.uid
        self.reader.put(on_table, tear_after_apdus=tear_after_apdus)
        try:
            return await self._made_up_its_mind(mark)
        finally:
            if lift:
                await self.lift(mark)

    async def _made_up_its_mind(self, since: int) -> Event:
        """What became of the card that was put there; a late answer to an earlier one is not it."""
        read = await self.log.wait_for(*_READ, since=since, timeout_s=TAP_TIMEOUT_S)
        if read.name != "read":
            return read
        return await self.log.wait_for(
            *_ANSWERED,
            since=since,
            where=lambda e: e.get("request") == read.get("request"),
            timeout_s=TAP_TIMEOUT_S,
        )

    async def lift(self, since: int) -> None:
        """Take the card away and wait until the terminal has noticed."""
        self.reader.lift()
        await self.log.wait_for("card_removed", "try_again", since=since, timeout_s=TAP_TIMEOUT_S)
        self._again_at_s[self._on_pad] = time.monotonic() + SAME_CARD_PAUSE_S

    async def settled(self, request_id: str, timeout_s: float = TAP_TIMEOUT_S) -> Event:
        """Wait until the terminal has been told that this request's transfer is final."""
        return await self.log.wait_for(
            "settled", where=lambda e: e.get("request") == request_id, timeout_s=timeout_s
        )

    def describe(self) -> dict[str, Any]:
        """Where everything is, for an app that is written against it."""
        return {
            "gatewayUrl": self.gateway_url,
            "rpcUrl": self.chain.rpc_url,
            "token": self.chain.token_address,
            "multicall": self.chain.multicall_address,
            "config": str(self.gateway_config),
            "terminalConfig": str(self.terminal_config),
            "stateDir": str(self.state_dir),
            "console": str(self.console_path),
            **self.world.public(),
        }

    # --- files ----------------------------------------------------------------------------------

    def _gateway_program(self, number: int) -> Program:
        name = "gateway" if number == 0 else f"gateway-{number + 1}"
        config = str(self._config_of(number))
        command = taprail_command("gateway", "run", "--config", config)
        return Program(name, command, self.state_dir / f"{name}.log")

    def _config_of(self, number: int) -> Path:
        if number == 0:
            return self.gateway_config
        return self.gateway_config.with_stem(f"gateway-{number + 1}")

    def _refuse_half_made(self) -> None:
        """A first start that was killed leaves keys whose people and cards nobody knows."""
        if self.device_key.exists() and not self._world_file.exists():
            raise ProgramError(
                f"{self.state_dir} is half made, by a first start that was stopped:"
                " remove it, or name another --state-dir"
            )

    @property
    def _world_file(self) -> Path:
        return self.state_dir / "world.json"

    @property
    def device_key(self) -> Path:
        """The terminal's private key, for a load that signs in its place."""
        return self.state_dir / "terminal" / "device.key"

    async def _find_or_make_world(self) -> None:
        world_file = self._world_file
        for number in range(self.options.gateways):
            self._write_gateway_config(number, port=0 if number else self.options.gateway_port)
        settings = GatewaySettings.load(self.gateway_config)
        if world_file.exists():
            self.world = worlds.load(world_file)
        else:
            await run_tool(taprail_command("admin", "--config", str(self.gateway_config), "init"))
            worlds.make_device_key(self.device_key)
            self.world = worlds.provision(settings, self.device_key)
            for _ in range(1, self.options.lanes):
                await run_tool(
                    taprail_command("admin", "--config", str(self.gateway_config), "lane", "add")
                )
            for lane in worlds.lanes(settings):
                self.chain.fund(lane, LANE_FUNDS_WEI)
            self.chain.mint_all(worlds.start_balances(self.world))
            worlds.save(self.world, world_file)
        self.cards = worlds.CardBox.of(self.world, settings)

    def _write_gateway_config(self, number: int, *, port: int) -> None:
        config = self._config_of(number)
        config.touch(mode=0o600)  # a database's password may be in there
        config.write_text(gateway_toml(self, port))

    def _write_terminal_config(self) -> None:
        self.terminal_config.write_text(terminal_toml(self, console=self._modem.near))


def _chain(options: StackOptions, state_dir: Path) -> AbstractAsyncContextManager[DevChain]:
    if options.rpc_url is not None:
        return chain_there(options.rpc_url, options.token, options.multicall)
    return own_chain(state_dir, options.block_time_s, options.published)
