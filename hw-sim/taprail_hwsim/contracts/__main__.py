"""`python -m taprail_hwsim.contracts [--check]`: write the artifacts, or see that they fit."""

import argparse
import sys
from pathlib import Path

from taprail_hwsim.contracts.artifact import (
    ARTIFACT_FOLDER,
    SOURCE_FOLDER,
    stale_artifacts,
    write_artifacts,
)
from taprail_hwsim.contracts.compiler import CompilerError
from taprail_hwsim.node_tools import ToolMissingError


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: done or current; 1: stale; 2: could not compile."""
    parser = argparse.ArgumentParser(
        prog="python -m taprail_hwsim.contracts",
        description="Compile the dev chain's contracts into contracts/artifacts.",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if an artifact is stale"
    )
    check_only = parser.parse_args(arguments).check
    try:
        return _check() if check_only else _write()
    except (CompilerError, ToolMissingError) as error:
        print(error, file=sys.stderr)
        return 2


def _write() -> int:
    for path in write_artifacts(_sources(), ARTIFACT_FOLDER):
        print(f"wrote {path.name}")
    return 0


def _check() -> int:
    stale = stale_artifacts(_sources(), ARTIFACT_FOLDER)
    for name in stale:
        print(f"{name} does not match its source: run `make contracts`", file=sys.stderr)
    return 1 if stale else 0


def _sources() -> list[Path]:
    return sorted(SOURCE_FOLDER.glob("*.sol"))


if __name__ == "__main__":
    sys.exit(main())
