"""One value of a TOML text changed or taken out, the rest of it left as its writer wrote it.

Answers for texts that this program and people write: tables with one value a line. What comes out
is parsed again and must be the old tree with the new value, so a text that is written another way
is refused, never spoilt.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any, Final

from taprail_common.errors import InputError

_TABLE: Final = re.compile(r"^\s*\[([^\[\]]+)\]\s*(#.*)?$")


def with_value(text: str, key: str, value: str) -> str:
    """The text with `table.name` set; raises InputError."""
    table, name = _parts(key)
    wanted = tomllib.loads(text)
    wanted.setdefault(table, {})[name] = parsed(value)
    edited = _edited(text.splitlines(), table, name, _literal(wanted[table][name]))
    return _checked(edited, wanted)


def without_value(text: str, key: str) -> str:
    """The text without `table.name`, whose default holds then; raises InputError."""
    table, name = _parts(key)
    wanted = tomllib.loads(text)
    if name not in wanted.get(table, {}):
        return text
    del wanted[table][name]
    lines = text.splitlines()
    at = _find_value(lines, table, name)
    kept = lines if at is None else [*lines[:at], *lines[at + 1 :]]
    return _checked("\n".join(kept) + "\n", wanted)


def _parts(key: str) -> tuple[str, str]:
    table, _, name = key.partition(".")
    if not (table.isidentifier() and name.isidentifier()):
        raise InputError("key", "must be like reader.port")
    return table, name


def _checked(edited: str, wanted: dict[str, Any]) -> str:
    """The text, if it means what is wanted."""
    try:
        holds = tomllib.loads(edited) == wanted
    except tomllib.TOMLDecodeError:
        holds = False
    if not holds:
        raise InputError("key", "stands in the file in a way that cannot be edited: export, import")
    return edited


def parsed(value: str) -> Any:
    """What was typed as TOML means it; words without quotes are text."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float | list):
        return json.dumps(value)  # JSON's texts, numbers and lists are TOML's too
    raise InputError("value", "must be a text, a number, true, false or a list")


def _edited(lines: list[str], table: str, name: str, literal: str) -> str:
    line = f"{name} = {literal}"
    start = _find_table(lines, table)
    if start is None:
        return "\n".join([*lines, "", f"[{table}]", line]) + "\n"
    at = _find_value(lines, table, name)
    if at is not None:
        return "\n".join([*lines[:at], line, *lines[at + 1 :]]) + "\n"
    return "\n".join([*lines[:start], line, *lines[start:]]) + "\n"


def _find_value(lines: list[str], table: str, name: str) -> int | None:
    """The line that sets a value of a table."""
    start = _find_table(lines, table)
    if start is None:
        return None
    end = next((at for at in range(start, len(lines)) if _TABLE.match(lines[at])), len(lines))
    assigned = re.compile(rf"^\s*{name}\s*=")
    return next((at for at in range(start, end) if assigned.match(lines[at])), None)


def _find_table(lines: list[str], table: str) -> int | None:
    """The line after the table's head."""
    for at, line in enumerate(lines):
        found = _TABLE.match(line)
        if found and found[1].strip() == table:
            return at + 1
    return None
