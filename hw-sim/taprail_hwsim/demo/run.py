"""Runs the demo from an empty folder to its proof."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.demo.proof import prove
from taprail_hwsim.demo.screen import Screen
from taprail_hwsim.demo.story import KILLED_AT, Story, StoryError
from taprail_hwsim.event_log import TerminalSilentError
from taprail_hwsim.process import ProgramError
from taprail_hwsim.stack import Stack, StackOptions

# Long enough for ten taps between two blocks, short enough to watch.
BLOCK_TIME_S: Final = 2.0
_PIPE_COLUMNS: Final = 110


async def run_demo(pictures: Path, *, as_json: bool) -> bool:
    """Tell the story; True when everything went as told and the books agree."""
    # In JSON mode the story is for people who look on: it goes to stderr.
    console = Console(file=sys.stderr if as_json else sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    screen = Screen(console)
    # Not in the project's folder: the path of a socket must be short.
    state_dir = Path(tempfile.mkdtemp(prefix="taprail-demo-"))
    began_s = time.monotonic()
    screen.title("TapRail", "starting node, gateway and terminal …")
    options = StackOptions(state_dir, block_time_s=BLOCK_TIME_S, crash_gateway=KILLED_AT)
    try:
        async with Stack(options) as stack, BlockWatch(stack.chain.rpc_url) as watch:
            screen.say(
                f"up in {time.monotonic() - began_s:.1f} s: chain {stack.chain.chain_id},"
                f" token {stack.chain.token_address}, gateway {stack.gateway_url}"
            )
            story = Story(stack, watch, screen, pictures)
            await story.tell()
            proof = prove(stack, story.records)
    except (StoryError, TerminalSilentError, ProgramError) as exc:
        screen.say(f"this is not how the story goes: {exc}", "bold red")
        screen.say(f"logs and state are in {state_dir}", "red")
        return False
    screen.proof(proof.rows())
    seconds = time.monotonic() - began_s
    screen.say(f"{seconds:.0f} s in all; pictures of the display in {pictures}")
    if as_json:
        report = {
            "ok": proof.holds,
            "seconds": round(seconds, 1),
            "taps": [record.to_json() for record in story.records],
            "proof": proof.to_json(),
            "pictures": [str(path) for path in story.pictures],
        }
        sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    if proof.holds:
        shutil.rmtree(state_dir, ignore_errors=True)
    return proof.holds
