"""What a stack is put together from and no part of what it is: the chain, and running a command."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from taprail_hwsim.anvil import AnvilOptions
from taprail_hwsim.dev_chain import DevChain
from taprail_hwsim.process import Program, ProgramError
from taprail_hwsim.published import Published


@asynccontextmanager
async def chain_there(rpc_url: str, token: str | None, multicall: str) -> AsyncIterator[DevChain]:
    """A chain that somebody else runs."""
    if token is None:
        raise ProgramError("a chain that is there needs its token too: --token 0x…")
    yield DevChain.attach(rpc_url, token, multicall)


@asynccontextmanager
async def own_chain(
    state_dir: Path, block_time_s: float, published: Published
) -> AsyncIterator[DevChain]:
    """A chain of our own, which goes on where it was; its token is deployed the first time."""
    token_file = state_dir / "token"
    known = token_file.read_text() if token_file.exists() else None
    anvil = AnvilOptions(block_time_s=block_time_s, state_path=state_dir / "chain.json")
    async with DevChain(anvil, token_address=known, published=published) as chain:
        if known is None:
            token_file.write_text(chain.deploy_token())
        yield chain


def taprail_command(*arguments: str) -> list[str]:
    """The command line of `taprail` with arguments."""
    # The interpreter's own scripts folder: the simulator may not be on anybody's PATH.
    return [str(Path(sys.executable).parent / "taprail"), *arguments]


async def run_tool(arguments: list[str]) -> None:
    """Run a command to its end; raises ProgramError with its words when it fails."""
    with tempfile.TemporaryFile() as complaints:
        process = await Program.spawn(arguments, os.environ, complaints)
        if process.stdout is not None:
            await process.stdout.read()
        if await process.wait() != 0:
            complaints.seek(0)
            words = complaints.read().decode(errors="replace")
            raise ProgramError(f"{' '.join(arguments)} failed: {words}")


async def stop_program(program: Program) -> None:
    """Stop it, unless it has ended."""
    if program.is_running:
        await program.stop()
