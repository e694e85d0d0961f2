"""The committed artifacts are what the compiler makes of the sources."""

import os
from pathlib import Path

import pytest

from taprail_hwsim.contracts import (
    ArtifactError,
    CompilerError,
    compile_sources,
    load_artifact,
    read_artifact,
    stale_artifacts,
    write_artifacts,
)
from taprail_hwsim.contracts.__main__ import main
from taprail_hwsim.contracts.artifact import SOURCE_FOLDER
from taprail_hwsim.node_tools import ToolMissingError, find_node, find_solc

ROOT = Path(__file__).resolve().parents[3]
COUNTER = """// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;
import "./Counting.sol";
contract Counter is Counting { uint256 public count; function add() external { count += 1; } }
"""
COUNTING = """// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;
interface Counting { function add() external; }
"""


@pytest.fixture
def solc() -> None:
    """Skips on a machine without the compiler; in CI its absence is a failure."""
    try:
        find_node()
        find_solc()
    except ToolMissingError as error:
        if os.environ.get("CI") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    counter, counting = tmp_path / "Counter.sol", tmp_path / "Counting.sol"
    counter.write_text(COUNTER)
    counting.write_text(COUNTING)
    return [counter, counting]


@pytest.mark.usefixtures("solc")
@pytest.mark.parametrize("folder", [SOURCE_FOLDER, ROOT / "gateway" / "contracts"])
def test_committed_artifacts_match_their_sources(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", str(folder)]) == 0, capsys.readouterr().err


@pytest.mark.usefixtures("solc")
def test_a_changed_source_makes_its_artifact_stale(sources: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    [written] = write_artifacts(sources, folder)
    assert written.name == "Counter.json"  # the interface has no code
    artifact = read_artifact(written)
    assert artifact.contract_name == "Counter"
    assert artifact.bytecode.endswith(artifact.deployed_bytecode[2:])
    assert stale_artifacts(sources, folder) == []
    (folder / "Left.json").write_text("{}")
    sources[0].write_text(COUNTER.replace("+= 1", "+= 2"))
    assert stale_artifacts(sources, folder) == ["Counter.json", "Left.json"]


@pytest.mark.usefixtures("solc")
def test_a_warning_is_an_error(tmp_path: Path) -> None:
    careless = tmp_path / "Careless.sol"
    careless.write_text("pragma solidity ^0.8.20; contract Careless {}")
    with pytest.raises(CompilerError, match="SPDX"):
        compile_sources([careless])


def test_the_token_has_what_a_payment_needs() -> None:
    names = {item.get("name") for item in load_artifact("DevToken").abi}
    assert names >= {
        "transferWithAuthorization",
        "receiveWithAuthorization",
        "cancelAuthorization",
        "authorizationState",
        "AuthorizationUsed",
        "AuthorizationCanceled",
        "DOMAIN_SEPARATOR",
    }


def test_a_missing_or_broken_artifact_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="make contracts"):
        load_artifact("Nothing")
    broken = tmp_path / "Broken.json"
    broken.write_text('{"contractName": "Broken"}')
    with pytest.raises(ArtifactError, match="not an artifact"):
        read_artifact(broken)
