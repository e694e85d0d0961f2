"""Artifacts: one JSON file per contract with its ABI and its code, committed beside the sources.

Answers for their format, for writing them, and for telling which no longer match their source.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taprail_hwsim.contracts.compiler import SETTINGS, CompiledContract, compile_sources

SOURCE_FOLDER = Path(__file__).parent
ARTIFACT_FOLDER = SOURCE_FOLDER / "artifacts"


class ArtifactError(Exception):
    """An artifact is missing or is not in the format that this module writes."""


@dataclass(frozen=True)
class Artifact:
    """A compiled contract. `bytecode` (deploys it) and `deployed_bytecode` (runs) are 0x hex."""

    contract_name: str
    source_sha256: str
    compiler: str
    settings: dict[str, Any]
    abi: list[dict[str, Any]]
    bytecode: str
    deployed_bytecode: str


# A field of Artifact by its key in the file, in the file's order.
_KEYS = {
    "contractName": "contract_name",
    "sourceSha256": "source_sha256",
    "compiler": "compiler",
    "settings": "settings",
    "abi": "abi",
    "bytecode": "bytecode",
    "deployedBytecode": "deployed_bytecode",
}


def load_artifact(name: str) -> Artifact:
    """The committed artifact of one of the dev chain's contracts, such as "DevToken"."""
    return read_artifact(ARTIFACT_FOLDER / f"{name}.json")


def read_artifact(path: Path) -> Artifact:
    """Read any artifact that `write_artifacts` has written. Raises ArtifactError."""
    try:
        document = json.loads(path.read_text())
        return Artifact(**{field: document[key] for key, field in _KEYS.items()})
    except FileNotFoundError as error:
        raise ArtifactError(f"no artifact {path}: run `make contracts`") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path} is not an artifact: run `make contracts`") from error


def write_artifacts(sources: Sequence[Path], folder: Path) -> list[Path]:
    """Compile the sources and write an artifact for each contract in them; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in _rendered(sources).items():
        path = folder / name
        path.write_text(text)
        written.append(path)
    return written


def stale_artifacts(sources: Sequence[Path], folder: Path) -> list[str]:
    """Compile the sources; names of artifact files that are missing, differ, or have no source."""
    fresh = _rendered(sources)
    stored = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(
        name for name in fresh.keys() | stored.keys() if fresh.get(name) != stored.get(name)
    )


def _rendered(sources: Sequence[Path]) -> dict[str, str]:
    return {f"{item.name}.json": _render(item) for item in compile_sources(sources)}


def _render(compiled: CompiledContract) -> str:
    document = {
        "contractName": compiled.name,
        "sourceSha256": hashlib.sha256(compiled.source.read_bytes()).hexdigest(),
        "compiler": f"solc {compiled.compiler}",
        "settings": SETTINGS,
        "abi": compiled.abi,
        "bytecode": compiled.bytecode,
        "deployedBytecode": compiled.deployed_bytecode,
    }
    return json.dumps(document, indent=2) + "\n"
