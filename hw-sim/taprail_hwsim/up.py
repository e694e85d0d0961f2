"""`taprail-sim up`: the whole stack until it is told to stop, with a socket for `taprail-sim tap`.

Answers for that socket's few commands, one JSON object a line each way. One tap at a time: there is
one reader, and a second hand has to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from taprail_hwsim.event_log import TerminalSilentError, command
from taprail_hwsim.fault_tap import known, tap_with_fault
from taprail_hwsim.process import ProgramError
from taprail_hwsim.stack import Stack, StackOptions

SOCKET_NAME: Final = "sim.sock"
_LINE_BYTES: Final = 4096
_SETTLE_TIMEOUT_S: Final = 120.0


class SimulatorError(Exception):
    """What was asked of the simulator cannot be done; the message says what to do."""


async def run_until_stopped(options: StackOptions, on_ready: Callable[[Stack], None]) -> None:
    """Start everything, call `on_ready`, and take it all down on SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    starting = asyncio.create_task(_serve(options, on_ready, stopped))
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done() and not options.state_dir.joinpath(SOCKET_NAME).exists():
        starting.cancel()  # told to stop before everything was up
    stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting


async def _serve(
    options: StackOptions, on_ready: Callable[[Stack], None], stopped: asyncio.Event
) -> None:
    async with Stack(options) as stack:
        path = stack.state_dir / SOCKET_NAME
        path.unlink(missing_ok=True)
        table = _Table(stack)
        server = await asyncio.start_unix_server(table.serve, path, limit=_LINE_BYTES)
        try:
            path.chmod(0o600)
            on_ready(stack)
            await _until_stopped_or_ended(stack, stopped)
        finally:
            server.close()
            path.unlink(missing_ok=True)


async def _until_stopped_or_ended(stack: Stack, stopped: asyncio.Event) -> None:
    """Return when told to; raise ProgramError when one of the programs has ended by itself."""
    waits = {
        asyncio.create_task(stopped.wait()): None,
        asyncio.create_task(stack.gateway.ended()): stack.gateway,
        asyncio.create_task(_terminal_ended(stack)): stack.terminal,
    }
    done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    for task in done:
        program = waits[task]
        if program is not None:
            raise ProgramError(program.obituary(task.result()))


async def _terminal_ended(stack: Stack) -> int:
    """Wait until it ends, and not because its power was cut by a fault that was asked for."""
    while True:
        code = await stack.terminal.ended()
        if stack.powered.is_set():
            return code
        await stack.powered.wait()


class _Table:
    """The reader and the cards, for whoever connects."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._hand = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer."""
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(await self._answer(reader)).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        try:
            request = json.loads(await reader.readline())
            return {"ok": True, **await self._tap(**request)}
        except (ValueError, TypeError) as exc:
            return {"ok": False, "error": f"not a request that the simulator knows ({exc})"}
        except (SimulatorError, TerminalSilentError, ProgramError) as exc:
            return {"ok": False, "error": str(exc)}

    async def _tap(
        self,
        *,
        card: str,
        amount: str | None,
        tear_after_apdus: int | None,
        settle: bool,
        fault: str | None = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        names = self._stack.cards.names()
        if card not in names:
            raise SimulatorError(f"no card {card!r} on the table; there are: {', '.join(names)}")
        if amount is None and not await self._asks_for_something():
            raise SimulatorError("the terminal asks for nothing: give an --amount")
        mark = self._stack.log.position
        async with self._hand:
            if fault is None:
                event = await self._stack.tap(card, amount, tear_after_apdus=tear_after_apdus)
            else:
                event = await tap_with_fault(self._stack, card, amount, known(fault), seed)
        result = {"event": event.name, **event.fields}
        if settle and event.get("outcome") == "approved":
            settled = await self._stack.settled(event.get("request"), _SETTLE_TIMEOUT_S)
            result["txHash"] = settled.get("txHash")
            await self._stack.log.wait_for(
                "shown", since=mark, where=lambda shown: shown.get("phase") == "settled"
            )
        await self._stack.panel.caught_up()
        result["display"] = self._stack.panel.display.braille()
        result["lights"] = self._stack.panel.lights()
        return result

    async def _asks_for_something(self) -> bool:
        if self._stack.options.fixed_amount is not None:
            return True
        answer = await command(self._stack.control_socket, command="status")
        return bool(answer.get("armed"))


async def ask(state_dir: Path, **request: Any) -> dict[str, Any]:
    """Ask a running `taprail-sim up` for a tap; raises SimulatorError when it refuses."""
    path = state_dir / SOCKET_NAME
    if not path.exists():
        raise SimulatorError(
            f"nothing runs in {state_dir}: start it with `taprail-sim up --state-dir {state_dir}`"
        )
    try:
        answer = await command(path, **request)
    except TerminalSilentError as exc:
        raise SimulatorError(f"the simulator in {state_dir} does not answer ({exc})") from exc
    if not answer.pop("ok"):
        raise SimulatorError(answer["error"])
    return answer
