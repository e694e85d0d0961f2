"""The dev chain's contracts: Solidity sources, their committed artifacts, and how to compile them.

The artifacts are committed so that nobody needs a compiler to run the dev chain; a test compiles
the sources again and holds them against the artifacts. Deploying is `dev_chain`'s business.
"""

from taprail_hwsim.contracts.artifact import (
    Artifact,
    ArtifactError,
    load_artifact,
    read_artifact,
    stale_artifacts,
    write_artifacts,
)
from taprail_hwsim.contracts.compiler import CompilerError, compile_sources

__all__ = [
    "Artifact",
    "ArtifactError",
    "CompilerError",
    "compile_sources",
    "load_artifact",
    "read_artifact",
    "stale_artifacts",
    "write_artifacts",
]
