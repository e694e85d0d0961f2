"""Looks that may never come back (a name server, an SD card), each in a thread of its own.

Answers for the rest of the agent: what hangs costs the console a thread and an answer, never one of
the threads that others wait for, and never the end of the process. How long somebody waits is the
caller's matter.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from taprail_common.errors import PartError

MOST_AT_ONCE: Final = 6
"""Of one kind: one for each console that there can be, and one to spare."""

T = TypeVar("T")


async def aside(what: str, work: Callable[[], T]) -> T:
    """Do blocking work aside; gives or raises what it does. Raises PartError when as many as may be
    of its kind have not come back yet."""
    name = f"look-{what}"
    if sum(thread.name == name for thread in threading.enumerate()) >= MOST_AT_ONCE:
        raise PartError(what, "earlier looks have not come back yet", fix="wait a minute")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def end(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return  # nobody waits any more
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # without an error it is a T

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as exc:  # noqa: BLE001 - raised again where it is awaited
            error = exc
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(end, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
