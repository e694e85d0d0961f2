"""What operators type for terminals' settings: names and values, checked as far as a gateway can.

Pure. Whether a value fits the others, and the hardware, the terminal alone knows; it refuses what
does not.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from taprail_common.errors import InputError
from taprail_common.terminal_settings import CHANGEABLE, SettingValue

_VALUE: Final[TypeAdapter[Any]] = TypeAdapter(SettingValue)


def parsed(pairs: Iterable[str]) -> dict[str, Any]:
    """`reader.port=/dev/ttyUSB1` and the like, by their names; raises InputError."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, is_one, text = pair.partition("=")
        if not is_one:
            raise InputError("setting", f"{pair[:60]!r} must be like reader.port=/dev/ttyUSB1")
        found[checked(name.strip())] = _value(name, text.strip())
    if not found:
        raise InputError("setting", "name one at least, like reader.port=/dev/ttyUSB1")
    return found


def checked(name: str) -> str:
    """The name of a setting that may be changed from afar; raises InputError."""
    if name in CHANGEABLE:
        return name
    near = difflib.get_close_matches(name, CHANGEABLE, n=1)
    hint = f"perhaps {near[0]} is meant" if near else f"only: {', '.join(CHANGEABLE)}"
    raise InputError("setting", f"{name[:60]!r} cannot be changed from here; {hint}")


def differences(wanted: Mapping[str, Any], runs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is wanted and does not run, name by name. What is wanted to be left out differs from
    nothing: the terminal's default holds."""
    return [
        {"key": name, "wanted": value, "runs": runs.get(name)}
        for name, value in sorted(wanted.items())
        if value is not None and runs.get(name) != value
    ]


def _value(name: str, text: str) -> Any:
    """What was typed as TOML means it; words without quotes are text."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    try:
        valid = _VALUE.validate_python(value)
    except ValidationError:
        raise InputError(
            name, "must be a text of at most 200 characters, a whole number, true, false or a list"
        ) from None
    several = valid if isinstance(valid, tuple) else (valid,)
    if not all(each.isprintable() for each in several if isinstance(each, str)):
        raise InputError(name, "holds characters that cannot be printed")
    return list(valid) if isinstance(valid, tuple) else valid
