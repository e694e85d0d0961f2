"""How many payments a gateway accepts: durable, signed, over HTTP, in one process.

The gateway (HTTP and ledger, no chain) and the load are processes of their own. The load has signed
all of its requests before the clock starts, and keeps one request under way on each connection.

Run alone: `python -m tests.bench.accept [payments] [connections]`.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from taprail_common.wire import SIGNATURE_HEADER, TERMINAL_HEADER
from tests.gateway_fixtures import PATH, TERMINAL, UNIT, TestGateway, running_gateway

CARDS = 500
_READ_LIMIT = 64 * 1024


def measure_accepts(payments: int = 10_000, connections: int = 64) -> dict[str, float]:
    """`accept.per_s`, `accept.p50_ms`, `accept.p99_ms` at full load, and the gateway's CPU time."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    gateway = context.Process(target=_gateway, args=(theirs, payments), daemon=True)
    gateway.start()
    try:
        port, requests = ours.recv()
        started = time.perf_counter()
        waits_ms = sorted(uvloop.run(_load(port, requests, connections)))
        took_s = time.perf_counter() - started
        ours.send("stop")
        cpu_s = ours.recv()
    finally:
        gateway.join(10)
        gateway.kill()
    return {
        "accept.per_s": payments / took_s,
        "accept.p50_ms": waits_ms[len(waits_ms) // 2],
        "accept.p99_ms": waits_ms[len(waits_ms) * 99 // 100],
        "accept.cpu_us": cpu_s / payments * 1e6,
    }


async def _load(port: int, requests: Sequence[bytes], connections: int) -> list[float]:
    shares = [requests[start::connections] for start in range(connections)]
    waits = await asyncio.gather(*(_one_connection(port, share) for share in shares))
    return [wait for share in waits for wait in share]


async def _one_connection(port: int, requests: Sequence[bytes]) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_READ_LIMIT)
    waits_ms = []
    for request in requests:
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
        body = await reader.readexactly(int(length))
        if not head.startswith(b"HTTP/1.1 200"):
            raise AssertionError(body.decode())
        waits_ms.append((time.perf_counter() - started) * 1000)
    writer.close()
    return waits_ms


def _gateway(control: Connection, payments: int) -> None:
    uvloop.run(_serve(control, payments))


async def _serve(control: Connection, payments: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with running_gateway(Path(folder)) as gateway:
            requests = _requests(gateway, payments)
            before_s = _cpu_s()
            control.send((int(gateway.url.rsplit(":", 1)[1]), requests))
            await asyncio.to_thread(control.recv)
            control.send(_cpu_s() - before_s)


def _requests(gateway: TestGateway, payments: int) -> list[bytes]:
    """Each card in turn, so that its counter rises from one round to the next."""
    gateway.clock.ahead_ms = 0
    cards = [
        gateway.card(f"04{number:012X}", balance_units=10**12, daily_limit_units=10**12)
        for number in range(CARDS)
    ]
    return [_http(gateway, gateway.request(cards[n % CARDS].tap())) for n in range(payments)]


def _http(gateway: TestGateway, request: dict[str, object]) -> bytes:
    body = json.dumps({**request, "amount": UNIT // 100}).encode()
    headers = gateway.headers(body)
    lines = (
        f"POST {PATH} HTTP/1.1",
        "Host: gateway",
        "Content-Type: application/json",
        f"{TERMINAL_HEADER}: {TERMINAL}",
        f"{SIGNATURE_HEADER}: {headers[SIGNATURE_HEADER]}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    figures = measure_accepts(*(int(argument) for argument in sys.argv[1:]))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
