"""The bundle: what a technician takes along for somebody who was not there, in one archive.

Answers for its contents, its size and for leaving secrets out: whatever looks like one is hidden
once more, wherever it came from. The archive travels within an answer, so it is bounded by that.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from taprail_common.clock import rfc3339
from taprail_common.logs import hide_secrets
from taprail_terminal.console import look, queue, settings
from taprail_terminal.console.answers import EXIT_OK, CommandResult
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.log_tail import KEPT_LINES

MAX_ARCHIVE_BYTES: Final = 40 * 1024
"""As base64 and within the other words of an answer, under `frames.MAX_JSON_BYTES`."""

_COMMANDS: Final = {
    "version": look.show_version,
    "status": look.status,
    "selftest": look.selftest,
    "last": look.last,
    "reader": look.reader_info,
    "ports": look.reader_scan,
    "key": look.key_fingerprint,
    "clock": look.clock,
    "config": settings.get,
    "queue": queue.show_list,
}


async def bundle(desk: Desk, _args: Sequence[str]) -> CommandResult:
    """All answers, the last taps and the log, as a .tar.gz in base64."""
    files: dict[str, Any] = {f"{name}.json": await _answer(desk, name) for name in _COMMANDS}
    files["taps.json"] = await desk.taps.traces()
    at_ms = desk.clock.now_ms()
    name = f"taprail-{desk.probes.terminal_id}-{rfc3339(at_ms)[:19].replace(':', '')}"
    data = await asyncio.to_thread(_bounded, files, desk.log.last(KEPT_LINES), name, at_ms // 1000)
    text = f"{name}.tar.gz, {len(data)} bytes: fetch it with `taprail diag bundle`"
    archive = base64.b64encode(data).decode("ascii")
    return CommandResult(EXIT_OK, text, {"name": f"{name}.tar.gz", "archive": archive})


async def _answer(desk: Desk, name: str) -> Mapping[str, Any]:
    result = await _COMMANDS[name](desk, ())
    return {"exitCode": result.exit_code, **result.data}


def _bounded(files: Mapping[str, Any], lines: Sequence[str], name: str, at_s: int) -> bytes:
    """The archive with as much of the log's end as there is room for."""
    while True:
        data = _packed(files, lines, name, at_s)
        if len(data) <= MAX_ARCHIVE_BYTES or not lines:
            return data
        lines = lines[len(lines) // 2 + 1 :]


def _packed(files: Mapping[str, Any], lines: Sequence[str], name: str, at_s: int) -> bytes:
    import tarfile  # a terminal that is never asked for one does without

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for file, value in [*files.items(), ("log.json", list(lines))]:
            clean = hide_secrets(None, "", {"value": value})["value"]
            content = json.dumps(clean, indent=1, default=str).encode()
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size, entry.mtime, entry.mode = len(content), at_s, 0o600
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
