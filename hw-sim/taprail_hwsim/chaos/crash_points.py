"""The crash points of the gateway, read from its source: a list that cannot get stale."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import taprail_gateway


def crash_points() -> list[str]:
    """The names of all `crash("…")` calls in the installed gateway, sorted, each once."""
    root = Path(taprail_gateway.__file__).parent
    return sorted({name for path in root.rglob("*.py") for name in _points_in(path.read_text())})


def _points_in(source: str) -> Iterator[str]:
    if "crash(" not in source:
        return
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "crash"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)
