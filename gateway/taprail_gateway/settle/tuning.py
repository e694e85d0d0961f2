"""What an operator may set about settlement at run time: names, ranges, and whether values hold.

Values are judged by the model of the configuration file, all of them together, because some of its
rules are about several settings.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import Connection

from taprail_common.errors import InputError
from taprail_gateway.ledger.actions import By, set_values, stored_settings
from taprail_gateway.settle.settings import SettlementSettings

_SHOWN: Final = 40
"""Characters of a wrong value that are said back."""


def names() -> list[str]:
    """The settings that may be changed at run time, in the order of the file's model."""
    return list(SettlementSettings.model_fields)


def require(name: str) -> str:
    """The name of a setting; InputError, with the names that there are, for any other."""
    if name in names():
        return name
    near = difflib.get_close_matches(name, names(), n=1)
    meant = f"perhaps {near[0]} is meant; " if near else ""
    raise InputError(name[:64], f"no such setting; {meant}there are {', '.join(names())}")


def may_be(name: str) -> str:
    """The range of a setting in words, like `a whole number from 1 to 500`."""
    schema = _properties()[name]
    return ", or ".join(_words(option) for option in schema.get("anyOf", [schema]))


def describe(name: str) -> str:
    """What a setting is for, in a sentence."""
    return str(_properties()[name].get("description", ""))


def checked(base: SettlementSettings, values: Mapping[str, Any]) -> SettlementSettings:
    """The base with these values; InputError names the first that does not hold, with its range."""
    for name in values:
        require(name)
    try:
        # Strict: JSON has numbers and texts of its own, and `true` is not 1.
        return SettlementSettings.model_validate({**base.model_dump(), **values}, strict=True)
    except ValidationError as exc:
        raise _as_input_error(exc, values) from None


def overlay(
    base: SettlementSettings, rows: Mapping[str, Any]
) -> tuple[SettlementSettings, dict[str, str]]:
    """The base with as many of these values as hold together; the others, each with its reason."""
    try:
        return checked(base, rows), {}
    except InputError:
        pass  # find out which of them it was
    taken: dict[str, Any] = {}
    while True:
        refused: dict[str, str] = {}
        before = len(taken)
        for name in sorted(rows.keys() - taken.keys()):
            try:
                checked(base, {**taken, name: rows[name]})
                taken[name] = rows[name]
            except InputError as exc:
                refused[name] = exc.message.removeprefix(f"{exc.field}: ")
        if len(taken) == before:  # nothing that was refused holds together with the others
            return checked(base, taken), refused


def change(
    connection: Connection, base: SettlementSettings, wanted: Mapping[str, Any], by: By
) -> tuple[SettlementSettings, SettlementSettings]:
    """Set all of these or none, on record; None gives one back to the file. What is in force before
    and after; InputError when they do not hold together with what was set before."""
    for name in wanted:
        require(name)
    stored = {name: value for name, value in stored_settings(connection).items() if name in names()}
    before, passed_over = overlay(base, stored)
    kept = {name: stored[name] for name in stored if name not in passed_over and name not in wanted}
    given = {name: value for name, value in wanted.items() if value is not None}
    after = checked(base, {**given, **kept})
    set_values(connection, wanted, by, was=before.model_dump(), becomes=after.model_dump())
    return before, after


def in_force(connection: Connection, base: SettlementSettings) -> SettlementSettings:
    """What a gateway goes by now: what operators have set, over its configuration."""
    return overlay(base, _stored(connection))[0]


def _stored(connection: Connection) -> dict[str, Any]:
    stored = stored_settings(connection)
    return {name: stored[name] for name in names() if name in stored}


def listed(base: SettlementSettings, stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every setting as people and programs see it."""
    known = {name: value for name, value in stored.items() if name in names()}
    now, passed_over = overlay(base, known)
    defaults = SettlementSettings()
    rows = []
    for name in names():
        filed = getattr(base, name)
        source = "default" if filed == getattr(defaults, name) else "file"
        row = {
            "name": name,
            "value": getattr(now, name),
            "from": "operator" if name in known and name not in passed_over else source,
            "file": filed,
            "default": getattr(defaults, name),
            "mayBe": may_be(name),
            "about": describe(name),
        }
        if name in passed_over:
            row["passedOver"] = passed_over[name]
        rows.append(row)
    return rows


@cache
def _properties() -> dict[str, dict[str, Any]]:
    properties: dict[str, dict[str, Any]] = SettlementSettings.model_json_schema()["properties"]
    return properties


def _words(option: Mapping[str, Any]) -> str:
    if "enum" in option:
        return " or ".join(option["enum"])
    kind = "a whole number" if option["type"] == "integer" else "a number"
    low = (
        f"over {option['exclusiveMinimum']:,}"
        if "exclusiveMinimum" in option
        else f"from {option['minimum']:,}"
    )
    return f"{kind} {low} to {option['maximum']:,}"


def _as_input_error(exc: ValidationError, values: Mapping[str, Any]) -> InputError:
    first = exc.errors()[0]
    if not first["loc"]:  # a rule about several of them
        return InputError(next(iter(values)), first["msg"].removeprefix("Value error, "))
    name = str(first["loc"][0])
    given = repr(values.get(name))[:_SHOWN]
    return InputError(name, f"must be {may_be(name)}, not {given}")
