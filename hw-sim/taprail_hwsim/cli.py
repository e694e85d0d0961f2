"""The command `taprail-sim`: the demo, a stack to play with, a tap on it, and trouble for it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import secrets
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from taprail_common.cli import run_command
from taprail_common.errors import OperatorError
from taprail_hwsim.anvil import AnvilError
from taprail_hwsim.demo.run import run_demo
from taprail_hwsim.demo.screen import lights
from taprail_hwsim.dev_chain import MULTICALL3_ADDRESS, DevChainError
from taprail_hwsim.event_log import TerminalSilentError
from taprail_hwsim.node_tools import ToolMissingError
from taprail_hwsim.process import ProgramError
from taprail_hwsim.published import Published, PublishedError
from taprail_hwsim.rpc import JsonRpc, RpcRefusedError, RpcUnreachableError
from taprail_hwsim.stack import Stack, StackOptions
from taprail_hwsim.up import SimulatorError, ask, run_until_stopped

app: Final = typer.Typer(
    help="TapRail without hardware: a simulated reader, cards and panel, and a real EVM node.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

DEFAULT_STATE_DIR: Final = Path("build/sim")
_SEEDS: Final = 1_000_000
"""Drawn ones are short enough to be typed."""
_STATE_DIR_BYTES: Final = 85
"""A socket's path has 107 bytes (unix(7), sun_path), and `/terminal/control.sock` takes 22."""
_FORESEEN: Final = (
    AnvilError,
    DevChainError,
    ProgramError,
    PublishedError,
    RpcRefusedError,
    SimulatorError,
    TerminalSilentError,
    ToolMissingError,
)

StateDir = Annotated[
    Path, typer.Option(envvar="TAPRAIL_SIM_STATE_DIR", help="Where keys, ledger and logs are kept.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def demo(
    pictures: Annotated[Path, typer.Option(help="Where the display's pictures go.")] = Path(
        "build/demo"
    ),
    as_json: AsJson = False,
) -> None:
    """Tap cards and settle them on a chain: a story with a proof at its end.

    Exit code 0 only if the chain says what the ledger says, to the unit.
    """
    _make_folder(pictures)
    if not _run(run_demo(pictures, as_json=as_json)):
        raise typer.Exit(1)


@app.command()
def up(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The gateway's; 0: any free.")] = 0,
    block_time: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds a block.")] = 1.0,
    rf_delay_ms: Annotated[
        float, typer.Option(min=0, max=500, help="Air time of each exchange with a card.")
    ] = 0.0,
    fixed_amount: Annotated[
        str | None, typer.Option(help="A fixed price, like 2.50; else `tap --amount` says.")
    ] = None,
    rpc_url: Annotated[str | None, typer.Option(help="Use a chain that is there.")] = None,
    token: Annotated[str | None, typer.Option(help="Its token's address.")] = None,
    multicall: Annotated[str, typer.Option(help="Its Multicall3's address.")] = MULTICALL3_ADDRESS,
    as_json: AsJson = False,
) -> None:
    """Run node, gateway and terminal on loopback until Ctrl-C, with cards, users and money.

    The same state folder goes on where it was. With --json one object says where everything is,
    when it is.
    """
    _check_state_dir(state_dir)
    if rpc_url is not None:
        _check_url(rpc_url)
    elif token is not None:
        raise OperatorError("--token is of a chain that is there", fix="give its --rpc-url too")
    options = StackOptions(
        state_dir,
        gateway_port=port,
        rpc_url=rpc_url,
        token=token,
        multicall=multicall,
        block_time_s=block_time,
        rf_delay_ms=rf_delay_ms,
        fixed_amount=fixed_amount,
        webhooks=True,
        gateway_wire=True,
    )
    _run(run_until_stopped(options, _print_json if as_json else _print_welcome))


@app.command()
def tap(
    card: Annotated[str, typer.Argument(help="Its name, like alice.")],
    amount: Annotated[str | None, typer.Option(help="What the till asks for, like 12.50.")] = None,
    tear_after_apdus: Annotated[
        int | None, typer.Option(min=0, help="Tear the card away after so many commands.")
    ] = None,
    fault: Annotated[
        str | None, typer.Option(help="What goes wrong around it, see `taprail-sim faults`.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same fault.")] = 0,
    settle: Annotated[
        bool, typer.Option("--settle", help="Wait until the transfer is final.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Tap a card on a running `taprail-sim up`. Exit code 0: approved, 1: anything else."""
    result = _run(
        ask(
            state_dir,
            card=card,
            amount=amount,
            tear_after_apdus=tear_after_apdus,
            fault=fault,
            seed=seed,
            settle=settle,
        )
    )
    if as_json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    else:
        _print_tap(result)
    if result.get("outcome") != "approved":
        raise typer.Exit(1)


@app.command()
def faults(as_json: AsJson = False) -> None:
    """Say what can go wrong around a tap: see `tap --fault`."""
    from taprail_hwsim.fault_list import list_faults

    list_faults(as_json=as_json)


@app.command()
def pay(
    card: Annotated[str, typer.Argument(help="Its name, like alice.")],
    amount: Annotated[str, typer.Option(help="Like 12.50.")],
    key: Annotated[
        str | None, typer.Option(help="Idempotency-Key: the same again is the same payment.")
    ] = None,
    settle: Annotated[
        bool, typer.Option("--settle", help="Wait until the transfer is final.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Pay as an app does on a running `taprail-sim up`. Exit code 0: approved, 1: anything else."""
    from taprail_hwsim import app_pay

    result = _run(app_pay.pay(state_dir, card, amount, key=key, settle=settle))
    if as_json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(" · ".join(str(each) for each in result.values() if each) + "\n")
    if result["outcome"] != "approved":
        raise typer.Exit(1)


@app.command()
def proxy(
    node: Annotated[str, typer.Option(help="The node's URL.")] = "http://127.0.0.1:8545",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="What to inject, like drop_reply:0.1 (a rate), hang:1 (the next one),"
            " delay:0.2:ms=300@eth_call (a parameter, a method). May be repeated."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same faults.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 0,
    list_all: Annotated[bool, typer.Option("--list", help="Say which faults there are.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stand before a node and inject faults into its JSON-RPC, until Ctrl-C.

    With --json each line on stdout is one object: ready with the URL, each injection, the totals.
    """
    from taprail_hwsim.rpc_proxy import FaultSpecError, parse_rule
    from taprail_hwsim.rpc_proxy.command import list_faults, run_proxy

    if list_all:
        list_faults(as_json=as_json)
        return
    _check_url(node, "--node")
    try:
        for each in fault or []:
            parse_rule(each)
    except FaultSpecError as exc:
        raise OperatorError(f"--fault: {exc}", fix="see `taprail-sim proxy --list`") from exc
    _run(run_proxy(node, fault or [], seed=seed, host=host, port=port, as_json=as_json))


ChaosSeed = Annotated[
    int | None, typer.Option(min=0, help="Repeats a schedule; left out: a new one.")
]
ChaosMinutes = Annotated[
    float, typer.Option(min=0.05, max=10_080, help="No round begins after it.")
]
ChaosRounds = Annotated[int | None, typer.Option(min=0, help="At most so many rounds.")]
ChaosFault = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this one, see --list; `crash`: all crash points, `reorg`: all depths."
        " May be repeated."
    ),
]
ChaosPaymentsPerS = Annotated[float, typer.Option(min=0.1, max=200, help="Offered load.")]
ChaosLanes = Annotated[int, typer.Option(min=1, max=16, help="Wallets that send.")]
ChaosGateways = Annotated[
    int, typer.Option(min=1, max=6, help="Several share one --database on a server.")
]
ChaosBlockTime = Annotated[float, typer.Option(min=0.1, max=60, help="Seconds a block.")]
ChaosRpcUrl = Annotated[
    str | None, typer.Option(help="Use an anvil that is there; its process is left alone.")
]
ChaosToken = Annotated[
    str | None,
    typer.Option(
        help="Artifact of the published token to use instead of the lean one; with --rpc-url:"
        " the address of one whose minter is the node's first account."
    ),
]
ChaosMulticall = Annotated[
    str | None,
    typer.Option(help="Artifact of the published Multicall3; with --rpc-url: its address."),
]
ChaosDatabase = Annotated[
    str,
    typer.Option(
        envvar="TAPRAIL_SIM_DATABASE",
        help="`sqlite`, or a PostgreSQL server on which new databases are made: the URL of one"
        " that is there, like postgresql://taprail@/postgres?host=/run/postgresql.",
    ),
]
ChaosKeep = Annotated[Path | None, typer.Option(help="Keep ledgers and logs here.")]
ChaosListAll = Annotated[bool, typer.Option("--list", help="Say which faults there are.")]


@app.command()
def chaos(
    seed: ChaosSeed = None,
    minutes: ChaosMinutes = 2.0,
    rounds: ChaosRounds = None,
    fault: ChaosFault = None,
    payments_per_s: ChaosPaymentsPerS = 5.0,
    lanes: ChaosLanes = 1,
    gateways: ChaosGateways = 1,
    block_time: ChaosBlockTime = 1.0,
    rpc_url: ChaosRpcUrl = None,
    token: ChaosToken = None,
    multicall: ChaosMulticall = None,
    database: ChaosDatabase = "sqlite",
    keep: ChaosKeep = None,
    list_all: ChaosListAll = False,
    as_json: AsJson = False,
) -> None:
    """Pay at a rate while node, wire and gateway fail, and judge by the chain's own transfers.

    Ten blocks after each fault nothing may be lost, paid twice or stuck. Exit code 0: so it was;
    1: it was not, and the seed is printed.
    """
    from taprail_hwsim.chaos.run import ChaosOptions, run_chaos
    from taprail_hwsim.chaos.screen import list_troubles

    if list_all:
        list_troubles(as_json=as_json)
        return
    if gateways > 1 and database == "sqlite":
        raise OperatorError("a file is for one gateway", fix="give --database postgresql://…")
    published = Published()
    if rpc_url is None:
        published = Published(*(Path(it) if it is not None else None for it in (token, multicall)))
    else:
        _check_url(rpc_url)
        if token is None:
            raise OperatorError("a chain that is there needs its token", fix="give its --token 0x…")
    options = ChaosOptions(
        seed=secrets.randbelow(_SEEDS) if seed is None else seed,
        minutes=minutes,
        rounds=rounds,
        faults=tuple(fault or ()),
        payments_per_s=payments_per_s,
        lanes=lanes,
        gateways=gateways,
        block_time_s=block_time,
        rpc_url=rpc_url,
        token=token if rpc_url is not None else None,
        multicall=multicall if rpc_url is not None and multicall else MULTICALL3_ADDRESS,
        published=published,
        database_url=None if database == "sqlite" else database,
        keep=keep,
    )
    try:
        options.names()
    except ValueError as exc:
        raise OperatorError(f"--fault: {exc}", fix="see `taprail-sim chaos --list`") from exc
    if keep is not None:
        _make_folder(keep)
    if not _run(run_chaos(options, as_json=as_json)):
        raise typer.Exit(1)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OperatorError(f"{folder}: {exc.strerror}", fix="choose another folder") from exc


def _check_state_dir(state_dir: Path) -> None:
    _make_folder(state_dir)
    if len(os.fsencode(state_dir.resolve())) > _STATE_DIR_BYTES:
        raise OperatorError(
            f"{state_dir}: its path is over {_STATE_DIR_BYTES} bytes, too long for a socket in it",
            fix="choose another folder",
        )


def _check_url(url: str, option: str = "--rpc-url") -> None:
    try:
        JsonRpc(url)
    except ValueError as exc:
        raise OperatorError(f"{option}: {exc}", fix="write it like http://127.0.0.1:8545") from exc


def _print_json(stack: Stack) -> None:
    sys.stdout.write(json.dumps(stack.describe(), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _print_welcome(stack: Stack) -> None:
    where = stack.describe()
    say: Callable[..., None] = Console(highlight=False, soft_wrap=True).print
    say("[bold]TapRail is up.[/] Ctrl-C stops it.\n")
    for name in ("gatewayUrl", "rpcUrl", "token", "config", "console"):
        say(f"  [dim]{name:<11}[/] {where[name]}")
    say(f"  [dim]{'cards':<11}[/] {', '.join(stack.cards.names())}")
    folder = f"--state-dir {stack.options.state_dir}"
    say(f"\n  taprail-sim tap alice --amount 12.50 --settle {folder}")
    say(f"  taprail admin --config {where['config']} payment list")
    say(f"  taprail diag --port {where['console']} selftest\n")


def _print_tap(result: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(Text(result["display"], "bold"))
    console.print(lights(result["lights"]))
    words = [result.get("outcome") or result["event"], result.get("reason"), result.get("txHash")]
    console.print(" · ".join(word for word in words if word), soft_wrap=True)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except RpcUnreachableError as exc:
        raise OperatorError(str(exc), fix="start the node, or correct --rpc-url") from exc
    except _FORESEEN as exc:
        raise OperatorError(str(exc)) from exc
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise OperatorError(str(exc.strerror), fix="choose another --port") from exc
        if exc.filename is None:
            raise
        raise OperatorError(f"{exc.filename}: {exc.strerror}", fix="choose another folder") from exc


def main() -> None:
    """Entry point of `taprail-sim`."""
    run_command(app)
