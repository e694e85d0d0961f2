"""The peer: an aiohttp server that says hello, with nothing behind it. Runs until it is killed."""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop
from aiohttp import web


async def _hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _serve() -> None:
    app = web.Application()
    app.router.add_get("/", _hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(json.dumps({"port": runner.addresses[0][1]}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
