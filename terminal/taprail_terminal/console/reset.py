"""Factory reset: a terminal without memory, and with a new key that no gateway knows yet.

Answers for being asked while the agent runs, and for being carried out at its next start, before
anything is open. It may be cut off anywhere: the mark goes last, so the next start goes on, and
ends with a terminal that starts: as itself where the configuration says who it is, else as one that
waits to be paired. The configuration and the journal of changes stay.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import structlog
from nacl.signing import SigningKey

from taprail_common.errors import OperatorError, PartError
from taprail_terminal.atomic_file import remove_file, replace_file
from taprail_terminal.config import TerminalConfig
from taprail_terminal.fleet_state import FLEET_FILE
from taprail_terminal.key_rotation import next_key_file
from taprail_terminal.outbox import Outbox
from taprail_terminal.paired import PAIRED_FILE
from taprail_terminal.tls_pins import PINS_FILE
from taprail_terminal.trust import TRUST_FILE

_MARK: Final = "factory-reset"
TECHNICIANS_FILE: Final = "technicians.json"

_log = structlog.get_logger()


def ask(config: TerminalConfig) -> None:
    """Let the next start reset the terminal. Raises PartError when the disk fails."""
    try:
        replace_file(_mark(config), b"asked\n")
    except OSError as exc:
        raise PartError("disk", f"the reset cannot be noted ({exc.strerror})") from exc


def at_start(config: TerminalConfig, now_ms: int) -> bool:
    """Carry out what was asked for; False when nothing was, or when a payment has come between."""
    if not _mark(config).exists():
        return False
    if config.outbox_file.exists() and (waits := asyncio.run(_what_waits(config, now_ms))):
        _log.error("the terminal is not reset", reason=waits)
        remove_file(_mark(config))
        return False
    for file in _forgotten(config):
        remove_file(file)
    replace_file(config.key_file, f"{bytes(SigningKey.generate()).hex()}\n".encode())
    remove_file(_mark(config))
    _log.warning("the terminal was reset; pair it anew")
    return True


async def _what_waits(config: TerminalConfig, now_ms: int) -> str:
    """Why the outbox may not go, empty when it may. Closing the file also empties its write-ahead
    log, so that one file is all there is."""
    outbox = Outbox(config.outbox_file)
    try:
        await outbox.open(now_ms)
        return "payments are unsent" if await outbox.unfinished() else ""
    except (PartError, OperatorError) as exc:
        return f"nobody can tell whether payments are unsent ({exc})"
    finally:
        await outbox.close()


def _forgotten(config: TerminalConfig) -> tuple[Path, ...]:
    """What was sold, what was learnt, and who the gateway is. The key is replaced, and not here."""
    state_dir = config.terminal.state_dir
    names = (TECHNICIANS_FILE, PAIRED_FILE, TRUST_FILE, PINS_FILE, FLEET_FILE)
    known = (
        *(config.outbox_file, config.device_file, config.offline_file),
        next_key_file(config.key_file),
    )
    return (*known, *(state_dir / name for name in names))


def _mark(config: TerminalConfig) -> Path:
    return config.terminal.state_dir / _MARK
