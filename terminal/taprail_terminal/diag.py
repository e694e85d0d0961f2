"""`taprail diag`: look into a terminal over its serial line.

Answers for asking one question over the line and showing the answer, for people or as JSON, always
within its time. Exit code 0: all is well; 1: the answer names something that is not; 2: there was
no talking to the terminal.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import serial
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from serial.tools import list_ports

from taprail_common.cli import EXIT_OPERATOR
from taprail_common.errors import LinkError, OperatorError
from taprail_terminal.console.commands import COMMAND_NAMES
from taprail_terminal.console.conversation import NOBODY
from taprail_terminal.console.frames import Decoder, Frame, encode
from taprail_terminal.console.serial_port import BAUD

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="Look into a terminal."
)

Question = StrEnum("Question", [(name.upper(), name) for name in COMMAND_NAMES])  # type: ignore[misc]  # mypy wants literal names; the table of commands has them

_POLL_S: Final = 0.1
_READ_BYTES: Final = 4096
_MAX_SENDS: Final = 3
"""A request that noise has garbled is sent again this often in all."""


@app.command()
def diag(
    question: Annotated[Question, typer.Argument(help="What to ask.", show_default=False)],
    port: Annotated[
        str, typer.Option(help="Serial port, like /dev/ttyUSB0.", envvar="TAPRAIL_DIAG_PORT")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer as JSON.", envvar="TAPRAIL_DIAG_JSON")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, max=600, help="Seconds to wait for the answer.", envvar="TAPRAIL_DIAG_TIMEOUT"
        ),
    ] = 30.0,
) -> None:
    """Ask a terminal how it is, over its serial line."""
    with _opened(port) as line:
        answer = ask(line, question.value, timeout)
    _show(answer, as_json=as_json)
    raise typer.Exit(_exit_code(answer))


def ask(line: Any, command: str, timeout_s: float) -> dict[str, Any]:
    """Send a command over an open pyserial port; gives the answer's body. Raises LinkError."""
    request = Frame(secrets.token_hex(4), {"command": command})
    deadline_s = time.monotonic() + timeout_s
    sends_left = _MAX_SENDS - 1
    try:
        _send(line, request, timeout_s)
        for frame in _frames(line, deadline_s):
            if frame.id == request.id and "exitCode" in frame.body:
                return frame.body
            if frame.id == NOBODY and sends_left:
                sends_left -= 1
                _send(line, request, timeout_s)
    except serial.SerialTimeoutException:
        pass
    except OSError as exc:
        raise LinkError(
            "the line was lost before the answer was complete", fix="check the cable, ask again"
        ) from exc
    raise LinkError(
        f"no answer in {timeout_s:g} s",
        fix="is the terminal on, and does its [console] port name the other end of this cable?",
    )


def _send(line: Any, request: Frame, timeout_s: float) -> None:
    line.write_timeout = timeout_s
    # The line end before it finishes whatever half a line the far end may have heard.
    line.write(b"\n" + encode(request))


def _frames(line: Any, deadline_s: float) -> Iterator[Frame]:
    decoder = Decoder()
    line.timeout = _POLL_S
    while time.monotonic() < deadline_s:
        data = line.read(min(_READ_BYTES, max(1, line.in_waiting)))
        yield from (item for item in decoder.feed(data) if isinstance(item, Frame))


@contextmanager
def _opened(port: str) -> Iterator[Any]:
    try:
        line = serial.Serial(port, BAUD, timeout=_POLL_S, exclusive=True)
    except OSError as exc:
        raise _explained(port, exc) from exc
    try:
        yield line
    finally:
        line.close()


def _explained(port: str, exc: OSError) -> OperatorError:
    """Why a port cannot be opened, with what to do about it."""
    if not Path(port).exists():
        found = ", ".join(sorted(item.device for item in list_ports.comports())) or "none"
        return OperatorError(f"no serial port {port}", fix=f"ports found here: {found}")
    if exc.errno in {errno.EACCES, errno.EPERM}:
        return OperatorError(
            f"{port} may not be opened", fix="join the group of serial ports: adduser $USER dialout"
        )
    if (holder := holder_of(Path(port))) is not None:
        return OperatorError(f"{port} is held by PID {holder}", fix=f"end it: kill {holder}")
    return OperatorError(f"{port} cannot be opened ({exc})")


def holder_of(port: Path, proc: Path = Path("/proc")) -> int | None:
    """Process id of another program that has the port open, as far as we may see."""
    target = port.resolve()
    for process in proc.glob("[0-9]*"):
        if int(process.name) != os.getpid() and target in _open_files(process / "fd"):
            return int(process.name)
    return None


def _open_files(folder: Path) -> set[Path]:
    files: set[Path] = set()
    try:
        for entry in folder.iterdir():
            files.add(entry.readlink())
    except OSError:  # not ours to look into, or gone by now
        return files
    return files


def _exit_code(answer: Mapping[str, Any]) -> int:
    code = answer["exitCode"]
    return code if isinstance(code, int) and 0 <= code <= EXIT_OPERATOR else EXIT_OPERATOR


def _show(answer: Mapping[str, Any], *, as_json: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if as_json:
        console.print(json.dumps(answer, ensure_ascii=False), markup=False)
        return
    data = answer.get("data")
    checks = data.get("checks") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(checks, list):
        console.print(str(answer.get("text", "")), markup=False)
        return
    facts = {name: value for name, value in data.items() if name not in {"checks", "ok"}}
    for name, value in facts.items():
        console.print(f"{name}: {value}", markup=False)
    console.print(_table(checks))


def _table(checks: list[Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for check in (check for check in checks if isinstance(check, dict)):
        mark = Text("✔", style="green") if check.get("ok") else Text("✘", style="bold red")
        cells = [Text(str(check.get(key, ""))) for key in ("name", "detail", "whatToDo")]
        cells[-1].stylize("yellow")
        table.add_row(mark, *cells)
    return table
