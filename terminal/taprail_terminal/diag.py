"""`taprail diag`: look into a terminal, and put it right, over its serial line or its socket.

Answers for the command line: what is meant by it, and the exit code. Exit code 0: all is well;
1: the answer names something that is not; 2: it was refused, or there was no talking to the
terminal.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from taprail_common.errors import OperatorError
from taprail_common.signing import load_key_file
from taprail_terminal import diag_key, diag_show
from taprail_terminal.console.commands import COMMANDS
from taprail_terminal.diag_line import Place, holder_of, only_port, ports
from taprail_terminal.diag_shell import Shell, is_interactive
from taprail_terminal.diag_talk import Talk, ask

__all__ = ["app", "ask", "holder_of"]

_LOCAL: Final = {
    "help": "this list",
    "ports": "serial ports of this laptop, and who holds them",
    "key make FILE": "make a technician's key; the gateway registers its public half",
    "key show FILE": "show its public half again",
}
_ON_FILES: Final = {"config import": "FILE|-", "config export": "[FILE]", "bundle": "[FILE]"}
"""What follows these here, where the console itself takes or gives a text."""

_EPILOG: Final = """\b
Without a command it is interactive: help, Tab and the arrow keys work as in a shell.

\b
  taprail diag                                 the only serial port there is
  taprail diag selftest                        why does it take no cards?
  taprail diag last                            why did the last tap fail?
  taprail diag live                            lights, display, queue and taps as they change
  taprail diag --socket /var/lib/taprail-terminal/console.sock status
  taprail diag --key ana.key config set reader.port /dev/ttyUSB0
  taprail diag --key ana.key config import till.toml
  taprail diag --json net test 20 | jq .data

\b
`taprail diag help` lists all commands; those with a * change the terminal and need --key.
Exit codes: 0 all is well; 1 the answer names what is not; 2 refused, or no talking to it.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog=_EPILOG)
def diag(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="See below.", show_default=False),
    ] = None,
    port: Annotated[
        str | None,
        typer.Option(help="Serial port, like /dev/ttyUSB0.", envvar="TAPRAIL_DIAG_PORT"),
    ] = None,
    socket: Annotated[
        Path | None,
        typer.Option(
            help="The console's socket, for who came by ssh.", envvar="TAPRAIL_DIAG_SOCKET"
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="Your private key; signs what changes.", envvar="TAPRAIL_DIAG_KEY"),
    ] = None,
    terminal: Annotated[
        str | None,
        typer.Option(help="Sign for this terminal only.", envvar="TAPRAIL_DIAG_TERMINAL"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer as JSON.", envvar="TAPRAIL_DIAG_JSON")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=600,
            help="Seconds to wait for the answer; as long as the command may take when left out.",
            envvar="TAPRAIL_DIAG_TIMEOUT",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Look into a terminal, and put it right, over its serial line or its socket."""
    given = list(words or [])
    if _is_local(given, as_json=as_json):
        return
    if not given and (as_json or not is_interactive()):
        raise OperatorError("which command?", fix="taprail diag help lists them")
    signs = load_key_file(key, diag_key.WHAT) if key is not None else None
    out = Console(highlight=False, soft_wrap=True)
    aside = Console(highlight=False, soft_wrap=True, stderr=True)

    def tell(news: str) -> None:
        aside.print(news, style="yellow", markup=False)

    with closing(Talk(_place(port, socket, aside), tell, signs, terminal)) as talk:
        shell = Shell(talk, out, aside, as_json=as_json, within_s=timeout)
        code = shell.give(given) if given else shell.run()
    raise typer.Exit(code)


def _place(port: str | None, socket: Path | None, aside: Console) -> Place:
    if port is not None and socket is not None:
        raise OperatorError("--port and --socket are two terminals", fix="name one of them")
    if port is None and socket is None:
        port = only_port()
        aside.print(f"at {port}", style="dim", markup=False)
    return Place(port, socket)


def _is_local(words: list[str], *, as_json: bool) -> bool:
    """Carry out what needs no terminal; whether it was that."""
    match words:
        case ["help"]:
            _help(as_json=as_json)
        case ["ports"]:
            _ports(as_json=as_json)
        case ["key", "make" | "show", *_]:
            diag_key.manage(words[1:], as_json=as_json)
        case _:
            return False
    return True


def _help(*, as_json: bool) -> None:
    listed = [
        {
            "command": f"{name} {_ON_FILES.get(name, each.words)}".strip(),
            "changes": "*" if each.changes(["x"]) else "",
            "summary": each.summary,
        }
        for name, each in COMMANDS.items()
        if name not in {"help", "challenge"}
    ]
    local = [{"command": name, "changes": "", "summary": what} for name, what in _LOCAL.items()]
    _listing([*listed, *local], {"command": "command", "changes": "", "summary": ""}, as_json)


def _ports(*, as_json: bool) -> None:
    listed = [
        {"port": each.device, "what": each.what, "heldBy": str(each.holder or "")}
        for each in ports()
    ]
    if not listed and not as_json:
        raise OperatorError("no serial port here", fix="plug the cable in")
    _listing(listed, {"port": "port", "what": "what", "heldBy": "held by"}, as_json)


def _listing(rows: list[dict[str, str]], columns: dict[str, str], as_json: bool) -> None:
    if as_json:
        diag_show.print_json(rows)
    else:
        Console(highlight=False).print(diag_show.rows(rows, columns))
