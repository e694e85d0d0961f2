"""Compiles Solidity by solc's JavaScript build, through its standard JSON interface.

Answers for settings that make the same bytes on every machine. Which sources there are, and where
their artifacts go, is the caller's business.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taprail_hwsim.node_tools import find_node, find_solc

# solc's JavaScript build takes some 5 s on a PC and five times that on a Raspberry Pi 4.
COMPILE_TIMEOUT_S = 120

# Settings of solc's standard JSON input, https://docs.soliditylang.org/en/latest/using-the-compiler.html
SETTINGS: Mapping[str, Any] = {
    # Live on every large chain; newer opcodes (MCOPY, TLOAD) are not.
    "evmVersion": "shanghai",
    # Gas per call is what counts here, not the size of the code.
    "optimizer": {"enabled": True, "runs": 1_000_000},
    # No hash of paths and comments in the code: the artifact depends on the sources alone.
    "metadata": {"bytecodeHash": "none", "appendCBOR": False},
}
_OUTPUTS = ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]

# Reads standard JSON from stdin; argv[1] is solc's folder.
_DRIVER = """
const solc = require(process.argv[1]);
const input = require("fs").readFileSync(0, "utf8");
const output = JSON.parse(solc.compile(input));
process.stdout.write(JSON.stringify({version: solc.version(), output}));
"""


class CompilerError(Exception):
    """The sources do not compile cleanly (a warning counts), or the compiler itself failed."""


@dataclass(frozen=True)
class CompiledContract:
    """What solc made of one contract; byte codes are hex with 0x."""

    name: str
    source: Path
    compiler: str
    abi: list[dict[str, Any]]
    bytecode: str
    deployed_bytecode: str


def compile_sources(sources: Sequence[Path]) -> list[CompiledContract]:
    """Compile the files together; every contract in them that can be deployed, by name.

    Files are known to each other by their bare names, so they import with `import "./Other.sol"`.
    Raises CompilerError, and ToolMissingError where Node or solc is not installed.
    """
    by_name = {source.name: source for source in sources}
    if len(by_name) != len(sources):
        raise CompilerError("two sources have the same file name")
    answer = _run_solc(
        {
            "language": "Solidity",
            "sources": {name: {"content": path.read_text()} for name, path in by_name.items()},
            "settings": {**SETTINGS, "outputSelection": {"*": {"*": _OUTPUTS}}},
        }
    )
    complaints = [error["formattedMessage"] for error in answer["output"].get("errors", [])]
    if complaints:
        raise CompilerError("\n".join(complaints))
    compiled = [
        _compiled(contract_name, by_name[file_name], answer["version"], contract)
        for file_name, contracts in answer["output"]["contracts"].items()
        for contract_name, contract in contracts.items()
    ]
    # Interfaces and abstract contracts have no code.
    return sorted((item for item in compiled if item.bytecode != "0x"), key=lambda item: item.name)


def _run_solc(standard_input: dict[str, Any]) -> dict[str, Any]:
    command = [str(find_node()), "-e", _DRIVER, str(find_solc())]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(standard_input),
            capture_output=True,
            text=True,
            check=True,
            timeout=COMPILE_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        raise CompilerError(f"solc crashed: {error.stderr.strip()[-2000:]}") from error
    except subprocess.TimeoutExpired as error:
        raise CompilerError(f"solc took longer than {COMPILE_TIMEOUT_S} s") from error
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _compiled(
    name: str, source: Path, compiler: str, contract: Mapping[str, Any]
) -> CompiledContract:
    return CompiledContract(
        name=name,
        source=source,
        compiler=compiler,
        abi=contract["abi"],
        bytecode="0x" + contract["evm"]["bytecode"]["object"],
        deployed_bytecode="0x" + contract["evm"]["deployedBytecode"]["object"],
    )
