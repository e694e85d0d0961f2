"""Crash points are found by reading the source: each must be written so that it can be found."""

import ast
from pathlib import Path

from taprail_hwsim.chaos.crash_points import crash_points

ROOT = Path(__file__).resolve().parents[2]


def test_every_crash_point_is_a_name_that_chaos_finds() -> None:
    hidden, named = [], set()
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and "crash" in ast.unparse(node.func)):
                continue
            if [type(argument) for argument in node.args] == [ast.Constant]:
                named.add(ast.literal_eval(node.args[0]))
            else:
                hidden.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not hidden, 'write crash points as crash("name")'
    assert crash_points() == sorted(named)
    assert "settle.bound" in named
