"""The faults that a stack can be put through: each is drawn from random numbers, then carried out.

Answers for what each one does and for its end: when `carry_out` returns, the fault is over, and the
clock runs in which everything has to be well again. Two of one kind are never at work together.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from taprail_hwsim.chaos.crash_points import crash_points
from taprail_hwsim.chaos.site import Site
from taprail_hwsim.rpc import RpcError
from taprail_hwsim.rpc_proxy import FAULTS
from taprail_hwsim.rpc_proxy.answer_faults import RECEIPT
from taprail_hwsim.rpc_proxy.table import about as fault_about

WIRE: Final = "wire"
GATEWAY: Final = "gateway"
NODE: Final = "node"
CRASH_PREFIX: Final = "crash:"
REORG_PREFIX: Final = "reorg:"
NOT_REACHED: Final = "not reached"
"""The remark on a crash point that was not passed in time: it says nothing then."""
_CRASH_TIMEOUT_S: Final = 12.0
"""For a point to be reached under load: no loop of the gateway looks less often than each 5 s."""
_QUIET_TIMEOUT_S: Final = 70.0
_PENDING_TIMEOUT_S: Final = 5.0
_PENDING_POLL_S: Final = 0.05
_GWEI: Final = 10**9
_DEEPEST_REORG: Final = 6
_SOME: Final = 60
"""A number below it stands for a gateway, however many there are (up to six: all alike)."""


class Trouble(Protocol):
    """One fault with all its parameters; `str` says them."""

    kind: ClassVar[str]

    async def carry_out(self, site: Site) -> str:
        """Do it, and see it end; gives a remark on how it went."""
        ...


# --- between gateway and node ---------------------------------------------------------------------


@dataclass(frozen=True)
class WireTrouble:
    """A fault of the proxy for a while."""

    rule: str
    seconds: float
    beside: tuple[str, ...] = ()
    """Rules without which it would not be met."""
    kind: ClassVar[str] = WIRE

    def __str__(self) -> str:
        beside = f" (with {', '.join(self.beside)})" if self.beside else ""
        return f"{self.rule} for {self.seconds:.1f} s{beside}"

    async def carry_out(self, site: Site) -> str:
        rules = site.proxy.inject(self.rule, *self.beside)
        await asyncio.sleep(self.seconds)
        site.proxy.withdraw(rules)
        # What hangs or travels still belongs to the fault: the gateway waits for it.
        async with asyncio.timeout(_QUIET_TIMEOUT_S):
            await site.proxy.quiet()
        return f"{rules[0].injected} times"


# By name: the rule's text after the name, from the random numbers. The rest is at some rate.
_AMOUNTS: Final[Mapping[str, Callable[[random.Random], str]]] = {
    "delay": lambda rng: f":0.5:ms={rng.randint(50, 3000)}",
    "hang": lambda rng: f":{rng.randint(1, 3)}:heard={rng.randint(0, 1)}",
    "http_502": lambda rng: f":{_rate(rng)}:heard={rng.randint(0, 1)}",
    "huge_reply": lambda rng: f":{rng.randint(1, 2)}",
    "lagging_head": lambda rng: f":{_rate(rng)}:blocks={rng.randint(1, 4)}",
    "null_receipt": lambda rng: f":{_often(rng)}:polls={rng.randint(1, 5)}",
    "receipt_then_null": lambda rng: f":{_often(rng)}:polls={rng.randint(1, 5)}",
    "foreign_receipt": lambda rng: f":{_often(rng)}",
    "flipped_status": lambda rng: f":{_often(rng)}",
    "wrong_block_hash": lambda rng: f":{_often(rng)}",
    "missing_logs": lambda rng: f":{_often(rng)}",
    "accepted_lost": lambda rng: f":{rng.randint(1, 3)}",
    "wrong_chain_id": lambda rng: f":id={rng.choice((1, 5, 137))}",
}
_ALWAYS: Final = frozenset({"strict_nonce", "bump_rule"})
"""Rules of a node, not accidents."""
_NO_LOGS: Final = "http_502@eth_getLogs"
"""Receipts are asked for only where logs cannot be had."""


def _rate(rng: random.Random) -> str:
    return f"{rng.choice((0.1, 0.3, 0.6, 1.0)):.1f}"


def _often(rng: random.Random) -> str:
    """For what is asked about once a block: at a lower rate it would not be met."""
    return f"{rng.choice((0.6, 1.0)):.1f}"


def _wire(name: str) -> Callable[[random.Random], Trouble]:
    def draw(rng: random.Random) -> Trouble:
        amount = _AMOUNTS[name](rng) if name in _AMOUNTS else f":{_rate(rng)}"
        text = name if name in _ALWAYS else name + amount
        beside = (_NO_LOGS,) if FAULTS[name].methods == RECEIPT else ()
        return WireTrouble(text, rng.uniform(2.0, 5.0), beside)

    return draw


# --- the gateway ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """A gateway is killed (-9) at a random moment and comes back."""

    after_s: float
    down_s: float
    who: int = 0
    kind: ClassVar[str] = GATEWAY

    def __str__(self) -> str:
        return f"kill -9 after {self.after_s:.2f} s, back after {self.down_s:.1f} s"

    async def carry_out(self, site: Site) -> str:
        await asyncio.sleep(self.after_s)
        await site.supervisor(self.who).kill(self.down_s)
        await site.supervisor(self.who).up()
        return "back"


@dataclass(frozen=True)
class GatewayPause:
    """A gateway's process stands still (SIGSTOP) amid its work, perhaps for longer than its leases
    last, and goes on."""

    seconds: float
    who: int = 0
    kind: ClassVar[str] = GATEWAY

    def __str__(self) -> str:
        return f"gateway stands still for {self.seconds:.1f} s"

    async def carry_out(self, site: Site) -> str:
        await site.supervisor(self.who).pause(self.seconds)
        return "goes on"


@dataclass(frozen=True)
class Crash:
    """A gateway ends at a crash point, as by kill -9, and comes back."""

    point: str
    hit: int
    who: int = 0
    kind: ClassVar[str] = GATEWAY

    def __str__(self) -> str:
        return f"crash at {self.point}@{self.hit}"

    async def carry_out(self, site: Site) -> str:
        supervisor = site.supervisor(self.who)
        await supervisor.kill(crash=f"{self.point}@{self.hit}")
        was_hit = await supervisor.crashed(_CRASH_TIMEOUT_S + site.lease_s)
        await supervisor.up()
        return "hit" if was_hit else NOT_REACHED


def _crash(point: str) -> Callable[[random.Random], Trouble]:
    return lambda rng: Crash(point, rng.randint(1, 4), rng.randrange(_SOME))


# --- the node -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NodePause:
    """The node's process stands still (SIGSTOP): it takes connections and never answers."""

    seconds: float
    kind: ClassVar[str] = NODE

    def __str__(self) -> str:
        return f"node stands still for {self.seconds:.1f} s"

    async def carry_out(self, site: Site) -> str:
        await asyncio.to_thread(site.stack.chain.pause)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            await asyncio.to_thread(site.stack.chain.resume)
        return "goes on"


@dataclass(frozen=True)
class NodeRestart:
    """The node is stopped and comes back with its blocks and without its pool."""

    down_s: float
    kind: ClassVar[str] = NODE

    def __str__(self) -> str:
        return f"node away for {self.down_s:.1f} s"

    async def carry_out(self, site: Site) -> str:
        await site.restart_node(self.down_s)
        return "back"


@dataclass(frozen=True)
class Reorg:
    """The last blocks are replaced by empty ones, and their transactions leave the pool."""

    depth: int
    kind: ClassVar[str] = NODE

    def __str__(self) -> str:
        return f"reorg of {self.depth}"

    async def carry_out(self, site: Site) -> str:
        # A node that was restarted has no states of the blocks before.
        await site.heads.reach(site.reorg_floor + self.depth + 1)
        head = await site.heads.next()
        first = hex(head - self.depth + 1)
        gone = await site.node("eth_getLogs", {"fromBlock": first, "toBlock": hex(head)})
        await site.node("anvil_reorg", self.depth, [])
        # The state went back as well, and with it what a wallet was given by hand.
        await site.fund_lanes()
        return f"{len({log['transactionHash'] for log in gone})} transactions undone"


def _reorg(depth: int) -> Callable[[random.Random], Trouble]:
    return lambda _: Reorg(depth)


@dataclass(frozen=True)
class FeeSpike:
    """The base fee of the next block is many times what anything under way offers."""

    gwei: int
    kind: ClassVar[str] = NODE

    def __str__(self) -> str:
        return f"base fee of {self.gwei} gwei"

    async def carry_out(self, site: Site) -> str:
        await site.node("anvil_setNextBlockBaseFeePerGas", hex(self.gwei * _GWEI))
        await site.heads.next()
        await site.heads.next()
        return "falls again by an eighth a block"


@dataclass(frozen=True)
class EmptyWallet:
    """The sending wallets have nothing left for gas, until somebody tops them up."""

    seconds: float
    kind: ClassVar[str] = NODE

    def __str__(self) -> str:
        return f"empty wallet for {self.seconds:.1f} s"

    async def carry_out(self, site: Site) -> str:
        await site.fund_lanes(0)
        await asyncio.sleep(self.seconds)
        await site.fund_lanes()
        return "topped up"


@dataclass(frozen=True)
class DropTransaction:
    """The node forgets a pending transaction, and with it those of higher nonces."""

    times: int
    kind: ClassVar[str] = NODE

    def __str__(self) -> str:
        return f"{self.times} pending dropped"

    async def carry_out(self, site: Site) -> str:
        dropped = 0
        for _ in range(self.times):
            tx_hash = await self._pending(site)
            if tx_hash is not None:
                await site.node("anvil_dropTransaction", tx_hash)
                dropped += 1
        return f"{dropped} dropped"

    async def _pending(self, site: Site) -> str | None:
        """The lowest pending transaction of a lane, as soon as there is one."""
        deadline_s = asyncio.get_running_loop().time() + _PENDING_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline_s:
            pool = (await site.node("txpool_content"))["pending"]
            for sender, by_nonce in pool.items():
                if sender.lower() in site.lanes:
                    return str(by_nonce[min(by_nonce, key=int)]["hash"])
            await asyncio.sleep(_PENDING_POLL_S)  # the pool announces nothing that could be awaited
        return None


# --- the catalogue --------------------------------------------------------------------------------

Draw = Callable[[random.Random], Trouble]

_OTHERS: Final[Mapping[str, tuple[str, Draw]]] = {
    "kill": (
        Kill.__doc__ or "",
        lambda rng: Kill(rng.uniform(0.0, 2.0), rng.uniform(0.1, 2.0), rng.randrange(_SOME)),
    ),
    "gateway_pause": (
        " ".join((GatewayPause.__doc__ or "").split()),
        lambda rng: GatewayPause(rng.uniform(1.0, 14.0), rng.randrange(_SOME)),
    ),
    "node_pause": (NodePause.__doc__ or "", lambda rng: NodePause(rng.uniform(0.5, 7.0))),
    "node_restart": (NodeRestart.__doc__ or "", lambda rng: NodeRestart(rng.uniform(0.1, 4.0))),
    "fee_spike": (FeeSpike.__doc__ or "", lambda rng: FeeSpike(rng.choice((5, 20, 60, 150)))),
    "empty_wallet": (EmptyWallet.__doc__ or "", lambda rng: EmptyWallet(rng.uniform(1.0, 6.0))),
    "drop_transaction": (
        DropTransaction.__doc__ or "",
        lambda rng: DropTransaction(rng.randint(1, 3)),
    ),
}
_NEED_THE_PROCESS: Final = frozenset({"node_pause", "node_restart"})


def catalogue(*, node_is_ours: bool = True) -> dict[str, Draw]:
    """Every trouble by its name, in a fixed order; without those that a foreign node cannot do."""
    troubles: dict[str, Draw] = {name: _wire(name) for name in FAULTS}
    troubles |= {CRASH_PREFIX + point: _crash(point) for point in crash_points()}
    troubles |= {REORG_PREFIX + str(depth): _reorg(depth) for depth in range(1, _DEEPEST_REORG + 1)}
    troubles |= {
        name: draw
        for name, (_, draw) in _OTHERS.items()
        if node_is_ours or name not in _NEED_THE_PROCESS
    }
    return troubles


def about(name: str) -> str:
    """The sentence about a trouble."""
    if name in FAULTS:
        return fault_about(name)
    if name.startswith(CRASH_PREFIX):
        return f"The gateway ends at its crash point {name.removeprefix(CRASH_PREFIX)}."
    if name.startswith(REORG_PREFIX):
        return Reorg.__doc__ or ""
    return _OTHERS[name][0]


def select_names(wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of the names that are wanted; `crash` stands for every crash point, `reorg` for every
    depth, nothing for all.

    Raises ValueError naming what there is not.
    """
    if not wanted:
        return list(names)
    kinds = {name.partition(":")[0] for name in names}
    for item in wanted:
        if item not in names and item not in kinds:
            raise ValueError(f"there is no fault {item!r} here")
    return [name for name in names if name in wanted or name.partition(":")[0] in wanted]


async def carry_out(trouble: Trouble, site: Site) -> str:
    """Carry one out; a node that refuses or is away then is a remark, no end of the campaign."""
    try:
        return await trouble.carry_out(site)
    except RpcError as exc:
        return f"could not be done: {exc}"
    except TimeoutError:
        return "had not ended in time"
