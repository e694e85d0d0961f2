"""The configuration as a technician sees it: what runs, and how its file differs from that.

Answers for names like `reader.port` and for hiding what an address may hold of a password.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from taprail_common.errors import InputError, OperatorError
from taprail_terminal.config import TerminalConfig, load_config
from taprail_terminal.console.answers import EXIT_OK, CommandResult, facts, table
from taprail_terminal.console.desk import Desk

_URL: Final = "terminal.gateway_url"
_MAX_WORD: Final = 120
# Whoever typed it may have put quotes around it, so it is no URL yet.
_ADDRESS_SECRETS: Final = re.compile(r"(://)\S*@|\?\S*")


async def get(desk: Desk, args: Sequence[str]) -> CommandResult:
    """What runs: all of it, a table of it, or one value."""
    values = flat(desk.config)
    if not args:
        return facts(values)
    prefix = args[0].strip("[]")
    found = {key: values[key] for key in values if key == prefix or key.startswith(f"{prefix}.")}
    if not found:
        near = difflib.get_close_matches(prefix, values, n=1)
        hint = f", perhaps {near[0]} is meant" if near else ""
        raise InputError("config", f"no key {prefix[:40]!r}{hint}")
    return facts(found)


async def diff(desk: Desk, _args: Sequence[str]) -> CommandResult:
    """How the file differs from what runs: what the next start will change."""
    stored = flat(await asyncio.to_thread(load_config, source_of(desk)))
    running = flat(desk.config)
    rows = [
        {"key": key, "runs": running[key], "file": stored[key]}
        for key in running
        if running[key] != stored[key]
    ]
    return CommandResult(EXIT_OK, table(rows, "the file says what runs"), {"differs": rows})


def source_of(desk: Desk) -> Path:
    """The configuration's file. Raises OperatorError when it was made without one."""
    if desk.config.source is None:
        raise OperatorError("this terminal runs without a configuration file")
    return desk.config.source


def flat(config: TerminalConfig) -> dict[str, Any]:
    """All values by their dotted names, fit to be shown."""
    values = dict(_flat(config.model_dump(mode="json"), ""))
    values[_URL] = without_password(values[_URL])
    return values


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    parts = urlsplit(url)
    if parts.username is None and parts.password is None and not parts.query:
        return url
    host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def as_told(words: Sequence[str]) -> str:
    """A command as it may be written down: no password of an address, of a file its digest."""
    return " ".join(map(_word_told, words))


def _word_told(word: str) -> str:
    if "\n" in word or len(word) > _MAX_WORD:
        data = word.encode(errors="replace")
        return f"({len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]})"
    return _ADDRESS_SECRETS.sub(r"\1", word)


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
