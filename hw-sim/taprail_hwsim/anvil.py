"""anvil as a child process: start it on a port of its own, pause it, stop it, kill it.

Answers for the process and for nothing that it serves. The child dies with the thread that started
it (Linux), so that no crashed test run leaves a node behind.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from taprail_hwsim.node_tools import find_anvil
from taprail_hwsim.process import die_with_parent
from taprail_hwsim.rpc import JsonRpc, RpcUnreachableError

DEFAULT_GAS_LIMIT = 30_000_000
# anvil listens after some 40 ms here; a busy Raspberry Pi is a hundred times slower at worst.
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.01
_PROBE_TIMEOUT_S = 2.0
_OUTPUT_BYTES = 64 * 1024
_LISTENING = re.compile(rb"Listening on 127\.0\.0\.1:(\d+)")


class AnvilError(Exception):
    """anvil did not start, or is not in a state to do what was asked."""


@dataclass(frozen=True)
class AnvilOptions:
    """How the node behaves. Interval mining always: automine strands concurrent sends."""

    block_time_s: float = 1.0
    gas_limit: int = DEFAULT_GAS_LIMIT
    chain_id: int = 31337
    # finalized = head - 2 epochs; anvil's own default is 32, which no test waits for.
    slots_in_an_epoch: int = 1
    # Loaded if it exists and written on a clean stop; a kill loses it.
    state_path: Path | None = None

    def arguments(self) -> list[str]:
        """The command line after the binary. Port 0: the system picks one, without a race."""
        named = {
            "--host": "127.0.0.1",
            "--port": 0,
            "--block-time": self.block_time_s,
            "--gas-limit": self.gas_limit,
            "--chain-id": self.chain_id,
            "--slots-in-an-epoch": self.slots_in_an_epoch,
        }
        if self.state_path is not None:
            named["--state"] = str(self.state_path)
        return [str(part) for pair in named.items() for part in pair]


class Anvil:
    """One anvil process. `spawn`, then `wait_ready` (or its async twin), then `rpc_url` is set."""

    def __init__(self, options: AnvilOptions) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self.rpc_url = ""

    def spawn(self) -> None:
        """Start the process, from a thread that outlives the chain: see `die_with_parent`."""
        if self._process is not None:
            raise AnvilError("this anvil has been started already")
        command = [str(find_anvil()), *self._options.arguments()]
        # anvil tells its port on stdout only. A file takes the text, because a pipe that nobody
        # empties would one day block the node; wait_ready silences it before it can grow.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _forget
        # A stopped node would not heed SIGTERM, so only a state worth saving makes it the choice.
        death_signal = signal.SIGKILL if self._options.state_path is None else signal.SIGTERM
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(death_signal),  # noqa: PLW1509 - one prctl, no allocation
        )

    def wait_ready(self) -> None:
        """Return when the node answers. Raises AnvilError with anvil's own last words."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready(deadline):
            time.sleep(_POLL_S)

    async def wait_ready_async(self) -> None:
        """`wait_ready` without holding up the event loop."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready(deadline):  # noqa: ASYNC110 - a child process sets no Event
            await asyncio.sleep(_POLL_S)

    def pause(self) -> None:
        """Stop the process: connections are accepted by the kernel and then hang."""
        process = self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        # The signal takes a moment to reach every thread; until then the node may still answer.
        while not _is_stopped(process.pid):
            if time.monotonic() > deadline:
                raise AnvilError("anvil did not stop on SIGSTOP")
            time.sleep(_POLL_S)

    def resume(self) -> None:
        """Let a paused process go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the process cleanly; writes its state, if it has one. Does nothing if it is gone."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """SIGKILL: the chain and everything on it is lost. Does nothing if it is gone."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)
        self._forget()

    def _is_ready(self, deadline: float) -> bool:
        if self._process is None:
            raise AnvilError("this anvil has not been started")
        output = self._read_output()
        if self._process.poll() is not None:
            raise AnvilError(f"anvil ended with code {self._process.returncode}: {_tail(output)}")
        found = _LISTENING.search(output)
        if found is not None and self._answers(f"http://127.0.0.1:{int(found[1])}"):
            return True
        if time.monotonic() > deadline:
            self.kill()
            raise AnvilError(f"anvil was not ready in {START_TIMEOUT_S:.0f} s: {_tail(output)}")
        return False

    def _answers(self, url: str) -> bool:
        node = JsonRpc(url, timeout_s=_PROBE_TIMEOUT_S)
        try:
            node.call("eth_chainId")
            # Anvil would log every call and every transaction; at 6,000 a second that costs.
            node.call("anvil_setLoggingEnabled", False)
        except RpcUnreachableError:
            return False
        self.rpc_url = url
        return True

    def _read_output(self) -> bytes:
        if self._output is None:
            raise AnvilError("this anvil has not been started")
        # pread leaves the file position alone, which the child shares and writes at.
        return os.pread(self._output.fileno(), _OUTPUT_BYTES, 0)

    def _signal(self, number: signal.Signals) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise AnvilError("anvil is not running")
        self._process.send_signal(number)
        return self._process

    def _forget(self) -> None:
        if self._output is not None:
            self._output.close()
        self._process = self._output = None


def _is_stopped(pid: int) -> bool:
    found, status = os.waitpid(pid, os.WUNTRACED | os.WNOHANG)
    if found != 0 and not os.WIFSTOPPED(status):
        raise AnvilError("anvil ended instead of pausing")
    return found != 0


def _tail(output: bytes) -> str:
    return output.decode(errors="replace").strip()[-500:] or "no output"
