"""A configuration's text as it may leave the terminal, and as it comes back.

Answers for passwords. The one that the gateway's address may hold is left out of an export, and put
in again when that export is imported here; what stands in a comment behind a word like `password`
is left out for good. What is shown is parsed again, and must mean what the file means.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

from taprail_common.errors import InputError
from taprail_terminal.console.config_edit import with_value
from taprail_terminal.console.settings import without_password

_URL: Final = "terminal.gateway_url"
_SECRET_WORD: Final = re.compile(r"(?i)\b(pass\w*|psk|secret\w*|token\w*|pin|credentials?)\b")
_HIDDEN: Final = " [hidden]"


def for_export(text: str) -> str:
    """The text without passwords. Raises InputError when it cannot be shown so."""
    url = _url(tomllib.loads(text))
    if url is not None and without_password(url) != url:
        text = with_value(text, _URL, without_password(url))
    shown = "\n".join(map(_without_told_secrets, text.splitlines())) + "\n"
    if tomllib.loads(shown) != tomllib.loads(text):
        raise InputError("config", "is written in a way that cannot be shown without its passwords")
    return shown


def as_imported(ours: str, text: str) -> str:
    """A text to be imported, with the password of our own address where it names the same one."""
    try:
        own, named = _url(tomllib.loads(ours)), _url(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return text  # said with all that is wrong with it when it is checked
    if own is None or named == own or named != without_password(own):
        return text
    return with_value(text, _URL, own)


def _url(tree: dict[str, Any]) -> str | None:
    table = tree.get("terminal")
    url = table.get("gateway_url") if isinstance(table, dict) else None
    return url if isinstance(url, str) else None


def _without_told_secrets(line: str) -> str:
    at = _comment_at(line)
    found = _SECRET_WORD.search(line, at) if at is not None else None
    return line if found is None else line[: found.end()] + _HIDDEN


def _comment_at(line: str) -> int | None:
    """Where the line's comment begins: at the first `#` outside of quotes."""
    quote, skip = "", False
    for at, character in enumerate(line):
        if skip:
            skip = False
        elif quote:
            skip = character == "\\" and quote == '"'
            quote = "" if character == quote else quote
        elif character == "#":
            return at
        elif character in "\"'":
            quote = character
    return None
