"""Configuration: a TOML file, then the environment, then flags, into one frozen object.

Every problem is reported at once, with the key that it is about. Nothing reads the environment
after this. A key that nobody knows is an error: a misspelt limit must not be ignored.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from taprail_common.errors import ConfigError, OperatorError

ENVIRONMENT_PREFIX: Final = "TAPRAIL_SET_"
"""`TAPRAIL_SET_GATEWAY__PORT=8080` sets `port` in the table `[gateway]`."""

CREDENTIAL_PREFIX: Final = "credential:"
"""A file named so is one that systemd hands over (systemd.exec(5), LoadCredential=)."""
_CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
_CREDENTIAL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


class Settings(BaseModel):
    """Base of every settings model: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)


def load_settings(
    model: type[S],
    path: Path,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> S:
    """Read, overlay and check; raises OperatorError (no file) or ConfigError (all problems).

    `flags` maps dotted keys ("gateway.port") to values; None means that the flag was not given.
    `defaults` are of the same form, and stand where nothing else says anything.
    Relative paths inside the file are left as they are: see `resolve`.
    """
    tree: dict[str, Any] = {}
    for key, value in (defaults or {}).items():
        _put(tree, key.split("."), value)
    tree = _over(tree, _read(path))
    for name, text in (os.environ if environment is None else environment).items():
        if name.startswith(ENVIRONMENT_PREFIX):
            _put(tree, name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"), text)
    for key, value in (flags or {}).items():
        if value is not None:
            _put(tree, key.split("."), value)
    try:
        return model.model_validate(tree)
    except ValidationError as exc:
        raise ConfigError(str(path), [_problem(model, error) for error in exc.errors()]) from None


def resolve(config_file: Path, path: Path, *, environment: Mapping[str, str] | None = None) -> Path:
    """A path of the configuration, relative to the file that names it; or a credential of systemd.

    Raises OperatorError for a credential that was not handed over.
    """
    text = str(path)
    if text.startswith(CREDENTIAL_PREFIX):
        known = os.environ if environment is None else environment
        return _credential(text.removeprefix(CREDENTIAL_PREFIX), known)
    return path if path.is_absolute() else (config_file.parent / path).resolve()


def _credential(name: str, environment: Mapping[str, str]) -> Path:
    if _CREDENTIAL_NAME.fullmatch(name) is None:
        raise OperatorError(
            f"{name[:40]!r} cannot be a credential's name",
            fix=f'write "{CREDENTIAL_PREFIX}NAME", with the NAME that LoadCredential= has',
        )
    folder = environment.get(_CREDENTIALS_VARIABLE)
    if not folder:
        raise OperatorError(
            f"the configuration names the credential {name}, and systemd has handed over none",
            fix=f"run this as a unit that has LoadCredential={name}",
        )
    file = Path(folder) / name
    if not file.exists():
        raise OperatorError(
            f"systemd has not handed over the credential {name}",
            fix=f"put it at /etc/credstore/{name}, and see that the unit has LoadCredential={name}",
        )
    return file


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise OperatorError(
            f"no configuration at {path}", fix="name one with --config FILE"
        ) from None
    except OSError as exc:
        raise OperatorError(f"configuration {path} cannot be read ({exc.strerror})") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(str(path), [f"is not TOML ({exc})"]) from exc


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            merged[name] = _over(below[name], above[name])
    return merged


def _put(tree: dict[str, Any], keys: list[str], value: object) -> None:
    *tables, last = keys
    for table in tables:
        inner = tree.setdefault(table, {})
        if not isinstance(inner, dict):
            return  # validation reports the wrong type under its own name
        tree = inner
    tree[last] = value


def _problem(model: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _known_keys(model), n=1)
        return f"{key} is unknown" + (f", perhaps {near[0]} is meant" if near else "")
    return f"{key}: {error['msg']}"


def _known_keys(model: type[BaseModel]) -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _known_keys(field.annotation)
    return keys
