"""`taprail terminal`: run the agent, make its key, and speak to a running one.

Answers for the command line only. Every option has a variable as its twin, and what is given
on the command line wins over the configuration file.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from taprail_common.clock import SystemClock
from taprail_common.errors import OperatorError
from taprail_common.logs import configure_logs
from taprail_common.service import SERVICE_MANAGER
from taprail_terminal.config import TerminalConfig, load_config, place_of
from taprail_terminal.identity import Identity

if TYPE_CHECKING:  # other commands need not wait for it
    from taprail_terminal.safe_mode import Starts

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Run the terminal agent and speak to it.",
)

ConfigFile = Annotated[
    Path, typer.Option("--config", help="The terminal's TOML file.", envvar="TAPRAIL_CONFIG")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.", envvar="TAPRAIL_JSON")]

ANSWER_LIMIT_S: Final = 30.0
_MAX_ANSWER_BYTES: Final = 256 * 1024


@app.command()
def run(
    config: ConfigFile,
    reader_port: Annotated[
        str | None,
        typer.Option(help="The card reader's port.", envvar="TAPRAIL_READER_PORT"),
    ] = None,
    gateway_url: Annotated[
        str | None, typer.Option(help="The gateway's address.", envvar="TAPRAIL_GATEWAY_URL")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning, error.", envvar="TAPRAIL_LOG_LEVEL")
    ] = None,
) -> None:
    """Take cards until told to stop. When ready, one line of JSON on stdout says so."""
    from taprail_terminal.slim import import_socketio

    import_socketio()
    from taprail_terminal.app import NewProcessError, main
    from taprail_terminal.console import trial
    from taprail_terminal.gateway_link import GatewayKeyChangedError
    from taprail_terminal.hardware import hardware_from
    from taprail_terminal.safe_mode import SafeModeOverError, Starts
    from taprail_terminal.service_needed import shown_when_it_fails

    flags = {
        "reader.port": reader_port,
        "terminal.gateway_url": gateway_url,
        "log.level": log_level,
    }
    trial.at_start(config)
    with shown_when_it_fails(config):
        settings = _as_paired(config, flags)
        starts = Starts(settings.terminal.state_dir)
        is_safe = starts.begin()
        hardware = hardware_from(settings, needs_all=not is_safe)
        try:
            main(settings, hardware, lambda: _come_up(starts, is_safe), is_safe=is_safe)
        except (NewProcessError, GatewayKeyChangedError):
            starts.came_up()
            _start_anew()
        except SafeModeOverError:
            _start_anew()
        starts.came_up()  # it was told to stop, and did


def _come_up(starts: Starts, is_safe: bool) -> None:
    from taprail_terminal.safe_mode import STEADY_S

    say_ready()
    loop = asyncio.get_running_loop()
    if not is_safe:
        loop.call_later(STEADY_S, loop.run_in_executor, None, starts.came_up)


def _start_anew() -> NoReturn:
    """The same process id, so that whoever started it need not notice; all threads are new."""
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - there is no shell in between


def _as_paired(path: Path, flags: dict[str, Any]) -> TerminalConfig:
    """The configuration of a terminal that knows whose it is; until then only its console is
    there."""
    from taprail_terminal.console import reset
    from taprail_terminal.console.unpaired import configured, wait_until_paired

    while True:
        settings, is_paired = configured(path, flags)
        configure_logs(json=settings.log.json_lines, level=settings.log.level)
        if reset.at_start(settings, SystemClock().now_ms()):
            continue  # it may have been paired until now
        if is_paired:
            return settings
        _say("unpaired")
        asyncio.run(wait_until_paired(settings))


def say_ready() -> None:
    """Tell whoever started the agent that it takes cards now."""
    _say("ready")


def _say(event: str) -> None:
    sys.stdout.write(json.dumps({"event": event}) + "\n")
    sys.stdout.flush()
    SERVICE_MANAGER.ready()


@app.command()
def init(config: ConfigFile, as_json: AsJson = False) -> None:
    """Make this terminal's key and print what the operator has to register."""
    settings = load_config(config)
    identity = Identity.create(settings.terminal.id, settings.key_file)
    facts = {
        "terminalId": identity.terminal_id,
        "publicKey": identity.public_key,
        "fingerprint": identity.fingerprint,
    }
    _print(facts, as_json=as_json)


@app.command()
def pair(
    config: ConfigFile,
    code: Annotated[str, typer.Argument(help="As `taprail admin terminal pair` shows it.")],
    gateway_url: Annotated[
        str | None, typer.Option(help="The gateway's address.", envvar="TAPRAIL_GATEWAY_URL")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make this device a terminal of a gateway. Compare both fingerprints with the operator's."""
    from taprail_terminal.pairing import pair as pair_device

    answer = asyncio.run(pair_device(place_of(config, gateway_url), code))
    facts = {
        "terminalId": answer.terminal_id,
        "merchantId": answer.merchant_id,
        "fingerprint": answer.fingerprint,
        "gatewayFingerprint": answer.gateway_fingerprint,
    }
    _print(facts, as_json=as_json)


@app.command()
def arm(
    config: ConfigFile,
    amount: Annotated[str, typer.Argument(help="What the next card pays, like 12.50.")],
    as_json: AsJson = False,
) -> None:
    """Ask for an amount: the next card pays it."""
    _print(_ask(load_config(config), {"command": "arm", "amount": amount}), as_json=as_json)


@app.command()
def cancel(config: ConfigFile, as_json: AsJson = False) -> None:
    """Take the amount back."""
    _print(_ask(load_config(config), {"command": "cancel"}), as_json=as_json)


@app.command()
def status(config: ConfigFile, as_json: AsJson = False) -> None:
    """Show what the agent does and how its parts are."""
    _print(_ask(load_config(config), {"command": "status"}), as_json=as_json)


@app.command()
def watch(config: ConfigFile) -> None:
    """Print each event as a line of JSON, until interrupted."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    try:
        for event in _lines(load_config(config), {"command": "watch"}, limit_s=None):
            console.print(json.dumps(event, ensure_ascii=False), markup=False)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def relay(
    port: Annotated[
        str, typer.Option(help="The card reader's port.", envvar="TAPRAIL_READER_PORT")
    ],
    driver: Annotated[
        str, typer.Option(help="The card reader's driver.", envvar="TAPRAIL_READER_DRIVER")
    ] = "pn532",
) -> None:
    """Carry commands between stdin and a card, for a program that writes cards.

    `taprail admin card personalize` runs this by itself, or through ssh where the reader is
    elsewhere. Stop the agent that uses the same reader first.
    """
    from taprail_terminal.readers import make_driver
    from taprail_terminal.relay import bounded_lines
    from taprail_terminal.relay import relay as carry

    reader = make_driver(driver, port)
    reader.check()
    carry(reader, bounded_lines(sys.stdin.buffer), _say_line)


def _say_line(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _ask(config: TerminalConfig, request: dict[str, Any]) -> dict[str, Any]:
    for answer in _lines(config, request, limit_s=ANSWER_LIMIT_S):
        return answer
    raise OperatorError("the agent hung up without an answer", fix="see its log")


def _lines(
    config: TerminalConfig, request: dict[str, Any], *, limit_s: float | None
) -> Iterator[dict[str, Any]]:
    """The agent's answers, line by line. Raises OperatorError for a refusal."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(limit_s)
        try:
            line.connect(str(config.control_socket))
        except OSError as exc:
            raise OperatorError(
                f"no agent answers at {config.control_socket} ({exc.strerror})",
                fix="start it: taprail terminal run --config FILE",
            ) from exc
        line.sendall(json.dumps(request).encode() + b"\n")
        with line.makefile("rb") as answers:
            while text := answers.readline(_MAX_ANSWER_BYTES):
                answer: dict[str, Any] = json.loads(text)
                if answer.get("ok") is False:
                    raise OperatorError(str(answer.get("error")), code=str(answer.get("code")))
                yield answer


def _print(facts: dict[str, Any], *, as_json: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if as_json:
        console.print(json.dumps(facts, ensure_ascii=False), markup=False)
        return
    for name, value in facts.items():
        if name != "ok":
            console.print(f"{name}: {_words(value)}", markup=False)


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(each)}" for name, each in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
