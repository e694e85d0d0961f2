"""Commands that change the terminal. Who may give them was settled before; each is in the journal.

Answers for refusing what a sale in progress, unsent payments or another trial forbid, and for
restarting the agent only after the answer has left.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final

from taprail_common.errors import InputError, OperatorError, PartError
from taprail_common.signing import fingerprint, parse_public_key, public_key_text
from taprail_terminal import pairing
from taprail_terminal.config import load_config
from taprail_terminal.console import reset, trial
from taprail_terminal.console.answers import EXIT_OK, CommandResult, facts, refused
from taprail_terminal.console.config_edit import with_value
from taprail_terminal.console.config_text import as_imported, for_export
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.log_tail import LEVELS
from taprail_terminal.console.settings import flat, source_of
from taprail_terminal.key_rotation import make_next_key
from taprail_terminal.paired import Place
from taprail_terminal.safe_mode import NOT_OPENED
from taprail_terminal.sale import Phase, ReaderLost

_ANSWER_LEAVES_S: Final = 0.5
"""So long an answer has on the line before the agent starts anew."""
_CODE_LIMIT_S: Final = 60.0
_REBOOT_LIMIT_S: Final = 3.0
_MAX_TOML: Final = 32 * 1024
_SERVICE: Final = "a technician is at work"
_QUIET: Final = frozenset({Phase.IDLE, Phase.READY, Phase.OUT_OF_SERVICE})

Args = Sequence[str]


async def reader_reset(desk: Desk, _args: Args) -> CommandResult:
    """Take the reader's power, where that is wired, and open it again."""
    _require_quiet(desk)
    await desk.reader.reset()
    return CommandResult(EXIT_OK, "the reader is being opened again: see reader info")


async def mode(desk: Desk, args: Args) -> CommandResult:
    """safe: no cards are taken, the reader is free. field: back to selling."""
    match list(args):
        case ["safe"]:
            _require_quiet(desk)
            await desk.reader.stop()
            desk.reader.trouble, desk.reader.sign = _SERVICE, None
            desk.agent.report(ReaderLost(_SERVICE))
        case ["field"]:
            if desk.reader.trouble in {_SERVICE, NOT_OPENED}:
                desk.reader.start()
        case _:
            raise InputError("mode", "must be field or safe")
    return facts({"mode": args[0], "phase": desk.probes.sale.phase()})


async def queue_retry(desk: Desk, _args: Args) -> CommandResult:
    """End the pauses: whatever waits for a verdict is posted again now, byte for byte."""
    stats = await desk.probes.outbox.check()
    desk.link.hurry()
    return facts({"posted again": stats.unresolved})


async def log_level(desk: Desk, args: Args) -> CommandResult:
    """Log more or less, until the next start."""
    if len(args) != 1 or args[0] not in LEVELS:
        raise InputError("level", f"must be one of: {', '.join(LEVELS)}")
    desk.log.set_level(args[0])
    return facts({"level": desk.log.level})


async def config_set(desk: Desk, args: Args) -> CommandResult:
    """One value, on trial from the restart that follows."""
    if len(args) != 2:
        raise InputError("config", "is set by: config set KEY VALUE")
    key, value = args
    if key not in flat(desk.config):
        raise InputError("config", f"no key {key[:40]!r}: see config get")
    text = await asyncio.to_thread(source_of(desk).read_text)
    return await _put_on_trial(desk, with_value(text, key, value))


async def config_export(desk: Desk, _args: Args) -> CommandResult:
    """The file as it is, without the passwords that stand in it."""
    shown = for_export(await asyncio.to_thread(source_of(desk).read_text))
    return CommandResult(EXIT_OK, shown, {"terminalId": desk.config.terminal.id, "toml": shown})


async def config_import(desk: Desk, args: Args) -> CommandResult:
    """A whole file, on trial from the restart that follows."""
    if len(args) != 1 or len(args[0].encode()) > _MAX_TOML:
        raise InputError("config", f"is imported from one text of at most {_MAX_TOML} bytes")
    ours = await asyncio.to_thread(source_of(desk).read_text)
    return await _put_on_trial(desk, as_imported(ours, args[0]))


async def _put_on_trial(desk: Desk, text: str) -> CommandResult:
    file = source_of(desk)
    _require_quiet(desk)
    if await asyncio.to_thread(trial.is_on, file):
        raise OperatorError(
            "a configuration is on trial already", fix="wait half a minute until it is kept"
        )
    await asyncio.to_thread(lambda: trial.begin(file, text.encode(), like=desk.config))
    _restart_soon(desk)
    return facts(
        {
            "restarts": True,
            "undoneIf": "the agent does not come up with it",
            "before": f"{file}.before",
        }
    )


async def key_rotate(desk: Desk, _args: Args) -> CommandResult:
    """Make the next key. The one in use goes on until the gateway has been told of the next."""
    try:
        key = await asyncio.to_thread(make_next_key, desk.config.key_file)
    except OSError as exc:
        raise PartError("disk", f"no key can be written ({exc.strerror})") from exc
    return facts(
        {
            "publicKey": public_key_text(key.verify_key),
            "fingerprint": fingerprint(key.verify_key),
            "inUse": desk.identity.fingerprint,
        }
    )


async def pair(desk: Desk, args: Args) -> CommandResult:
    """Become the terminal that the code is for, from the restart that follows. What waits was
    signed as the one that this is now."""
    if len(args) != 1:
        raise InputError("code", "is missing: pair CODE")
    await _require_empty(desk)
    _require_quiet(desk)
    config = desk.config
    place = Place(config.terminal.gateway_url, config.terminal.state_dir, config.key_file)
    answer = await pairing.pair(place, args[0])
    now = await asyncio.to_thread(load_config, source_of(desk))
    if (now.terminal.id, now.given_key) != (
        answer.terminal_id,
        parse_public_key(answer.gateway_public_key),
    ):
        raise OperatorError(
            "paired, but the configuration names another terminal or gateway, and it counts first",
            fix="take id, merchant_id, currency, decimals and gateway_public_key out of it",
        )
    _restart_soon(desk)
    return facts(pairing.paired_facts(answer))


async def reboot(_desk: Desk, _args: Args) -> CommandResult:
    """Start the machine anew."""
    try:
        process = await asyncio.create_subprocess_exec(
            "systemctl",
            "reboot",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(_REBOOT_LIMIT_S):
            failed = await process.wait()
    except (OSError, TimeoutError):
        failed = 1
    if failed:
        return refused(
            "the machine was not told to reboot", "allow it to the agent's user, or: sudo reboot"
        )
    return CommandResult(EXIT_OK, "the machine starts anew")


async def factory_reset(desk: Desk, args: Args) -> CommandResult:
    """First step: a code. Second step, with the code: forget everything, and make a new key."""
    await _require_empty(desk)
    pending, now_s = desk.pending, desk.clock.monotonic_s()
    if not args:
        pending.reset_code = secrets.token_hex(3)
        pending.reset_until_s = now_s + _CODE_LIMIT_S
        data = {"code": pending.reset_code, "validSeconds": round(_CODE_LIMIT_S)}
        text = f"this forgets all; to do it: factory-reset {pending.reset_code}"
        return CommandResult(EXIT_OK, text, data)
    code, pending.reset_code = pending.reset_code, ""
    if not code or now_s > pending.reset_until_s or not secrets.compare_digest(code, args[0]):
        raise InputError("code", "is not the one of the first step, or is older than a minute")
    _require_quiet(desk)
    await asyncio.to_thread(reset.ask, desk.config)
    _restart_soon(desk)
    return facts({"restarts": True, "then": "pair it anew"})


def _require_quiet(desk: Desk) -> None:
    if desk.agent.state.phase not in _QUIET:
        raise OperatorError("a sale is going on", fix="let it come to its end first")


async def _require_empty(desk: Desk) -> None:
    waiting = await desk.outbox.unfinished()
    if waiting:
        raise OperatorError(
            f"{len(waiting)} payments have no end yet, and nobody else has their evidence",
            fix="bring the gateway in reach, then: queue list",
        )


def _restart_soon(desk: Desk) -> None:
    asyncio.get_running_loop().call_later(_ANSWER_LEAVES_S, desk.pending.restart.set)
