"""The command `taprail`: one word for each of its commands, loaded when it is called.

A Pi has no web3 and a gateway has no nfcpy, so each command's package is imported only when that
command is run; a missing one is answered with what to install.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, Final

from taprail_common.errors import OperatorError, TapRailError
from taprail_common.slim import import_without

# structlog loads rich for tracebacks that show every local variable, which ours never do: 3 MB.
import_without("structlog", ["rich"])

# command -> (module with a typer app named `app`, extra that brings what it needs, one line)
_COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "gateway": ("taprail_gateway.cli", "gateway", "run the gateway"),
    "admin": ("taprail_gateway.admin", "gateway", "manage cards, merchants, terminals and users"),
    "terminal": ("taprail_terminal.cli", "terminal", "run the terminal agent"),
    "diag": ("taprail_terminal.diag", "terminal", "look into a terminal over its serial line"),
}

EXIT_OPERATOR: Final = 2
"""A person has to put something right; the message says what."""


def run_command(command: Callable[[], Any]) -> None:
    """Run a command; an error that was foreseen is one red line and an exit code, no traceback."""
    try:
        command()
    except TapRailError as exc:
        from rich.console import Console

        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"error: {exc}", style="red", markup=False
        )
        sys.exit(EXIT_OPERATOR)


def main() -> None:
    """Entry point of `taprail`."""
    run_command(lambda: _dispatch(sys.argv[1:]))


def _dispatch(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in {"-h", "--help"}:
        _print_help()
        return
    if arguments[0] == "--version":
        sys.stdout.write(f"taprail {metadata.version('taprail')}\n")
        return
    name, *rest = arguments
    if name not in _COMMANDS:
        raise OperatorError(f"no command {name!r}", fix=f"try one of: {', '.join(_COMMANDS)}")
    _load(name)(args=rest, prog_name=f"taprail {name}")


def _load(name: str) -> Callable[..., Any]:
    module, extra, _ = _COMMANDS[name]
    try:
        app: Callable[..., Any] = importlib.import_module(module).app
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("taprail_"):
            raise
        raise OperatorError(
            f"'taprail {name}' needs the package {exc.name}", fix=f"pip install 'taprail[{extra}]'"
        ) from exc
    return app


def _print_help() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 3))
    for name, (_, _, line) in _COMMANDS.items():
        table.add_row(f"  [bold]taprail {name}[/]", line)
    console = Console(highlight=False)
    console.print("Tap-to-pay from an NFC card to an EVM chain.\n")
    console.print(table)
    console.print("\nEach says more with --help; --version says which TapRail this is.")
