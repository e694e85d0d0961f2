"""`python -m taprail_hwsim.contracts [--check] [FOLDER]`: write artifacts, or see that they fit."""

import argparse
import sys
from pathlib import Path

from taprail_hwsim.contracts.artifact import SOURCE_FOLDER, stale_artifacts, write_artifacts
from taprail_hwsim.contracts.compiler import CompilerError
from taprail_hwsim.node_tools import ToolMissingError


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: done or current; 1: stale; 2: could not compile."""
    parser = argparse.ArgumentParser(
        prog="python -m taprail_hwsim.contracts",
        description="Compile the contracts of a folder into its artifacts.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=SOURCE_FOLDER,
        help="where the sources are; without it, the dev chain's",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if an artifact is stale"
    )
    given = parser.parse_args(arguments)
    try:
        return _check(given.folder) if given.check else _write(given.folder)
    except (CompilerError, ToolMissingError) as error:
        print(error, file=sys.stderr)
        return 2


def _write(folder: Path) -> int:
    for path in write_artifacts(_sources(folder), folder / "artifacts"):
        print(f"wrote {path.name}")
    return 0


def _check(folder: Path) -> int:
    stale = stale_artifacts(_sources(folder), folder / "artifacts")
    for name in stale:
        print(f"{name} does not match its source: run `make contracts`", file=sys.stderr)
    return 1 if stale else 0


def _sources(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.sol"))


if __name__ == "__main__":
    sys.exit(main())
