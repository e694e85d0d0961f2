"""`taprail terminal run`, whose reader's driver hangs for ever in the process's first life.

    python -m tests.support.stuck_child FILE terminal.toml

What is written to FILE says in which life it is. The waits of the supervisor are short here, and
nothing else differs from the program.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from taprail_common.cli import run_command
from taprail_terminal import cli, hardware
from taprail_terminal.readers import ladder, make_driver, supervisor
from taprail_terminal.readers.base import Driver

_QUICK_S = 0.05


def main(lives: Path, config: str) -> None:
    """Start the agent."""
    with lives.open("a") as file:
        file.write("life\n")
    if lives.read_text().count("life") == 1:
        supervisor.OPEN_LIMIT_S = _QUICK_S  # type: ignore[misc]
        supervisor.WATCH_EVERY_S = _QUICK_S / 5  # type: ignore[misc]
        ladder.REOPEN_AFTER_S = (_QUICK_S,) * 5  # type: ignore[misc]
        hardware.make_driver = _hanging  # type: ignore[attr-defined]
    run_command(lambda: cli.app(["run", "--config", config], standalone_mode=False))


def _hanging(name: str, port: str) -> Driver:
    driver = make_driver(name, port)
    driver.open = threading.Event().wait  # type: ignore[assignment,method-assign]
    return driver


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
