"""Load on a gateway: signed terminal requests, sent over HTTP by a process of its own.

Answers for making requests that a gateway accepts, for offering them at a rate (open loop) or one
after another on each connection (closed loop), and for the times of the answers. In open loop a
time counts from the moment at which the request was due, not from when it could be written, so a
gateway that stalls cannot hide it. All is signed before the first byte is sent.

Started as `python -m taprail_hwsim.load`, it reads a plan on stdin and writes a report to stdout.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, Final, cast

import uvloop
from nacl.signing import SigningKey

from taprail_common.clock import rfc3339
from taprail_common.ids import new_id
from taprail_common.signing import Domain, sign
from taprail_common.wire import SIGNATURE_HEADER, TAP_VALIDITY_MS, TERMINAL_HEADER
from taprail_hwsim.cards.ntag424 import Ntag424

PAYMENT_PATH: Final = "/api/payment/process-async"
_HEAD_END: Final = b"\r\n\r\n"
_MAX_HEAD_BYTES: Final = 16 * 1024
_MAX_BODY_BYTES: Final = 1024 * 1024
_LENGTH: Final = struct.Struct("!I")
_OK: Final = 200


class LoadError(Exception):
    """The load could not be applied, or an answer could not be read."""


# --- requests -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Till:
    """A terminal that only signs: no reader, no outbox."""

    terminal_id: str
    merchant_id: str
    currency: str
    key: SigningKey = field(repr=False)

    def body(self, card: Ntag424, amount_units: int, tapped_at_ms: int) -> bytes:
        """A payment by the card's next tap; its counter goes on."""
        query = card.read_sun_url().partition("?")[2]
        proof = dict(pair.split("=") for pair in query.split("&"))
        message = {
            "requestId": new_id("req"),
            "terminalId": self.terminal_id,
            "merchantId": self.merchant_id,
            "amount": amount_units,
            "currency": self.currency,
            "tappedAt": rfc3339(tapped_at_ms),
            "acceptUntil": rfc3339(tapped_at_ms + TAP_VALIDITY_MS),
            "proof": {"profile": "sun", "piccData": proof["picc"], "mac": proof["mac"]},
        }
        return json.dumps(message, separators=(",", ":")).encode()

    def headers(self, body: bytes) -> dict[str, str]:
        """Who says it, and the signature over exactly these bytes."""
        return {
            "Content-Type": "application/json",
            TERMINAL_HEADER: self.terminal_id,
            SIGNATURE_HEADER: sign(self.key, Domain.PAYMENT_REQUEST, body),
        }

    def request(self, body: bytes) -> bytes:
        """The body as a signed HTTP request, ready for the wire."""
        headers = {
            "Host": "gateway",
            **self.headers(body),
            "Content-Length": str(len(body)),
        }
        lines = [f"POST {PAYMENT_PATH} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join(lines).encode() + _HEAD_END + body


def payments(
    till: Till, cards: Sequence[Ntag424], count: int, *, amount_units: int, tapped_at_ms: int
) -> list[bytes]:
    """`count` signed requests, the cards in turn, so that each one's counter rises in the order."""
    return [
        till.request(till.body(cards[number % len(cards)], amount_units, tapped_at_ms))
        for number in range(count)
    ]


# --- answers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Response:
    """What came back."""

    status: int
    body: bytes


class ResponseReader:
    """Puts the responses of one connection together from what arrives; sans I/O."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, data: bytes) -> Iterator[Response]:
        """The responses that are complete now; raises LoadError for what is no such response."""
        self._bytes += data
        while (response := self._next()) is not None:
            yield response

    def _next(self) -> Response | None:
        head_end = self._bytes.find(_HEAD_END)
        if head_end < 0:
            if len(self._bytes) > _MAX_HEAD_BYTES:
                raise LoadError("the response's head has no end")
            return None
        status, length = _parse_head(self._bytes[:head_end])
        body_end = head_end + len(_HEAD_END) + length
        if len(self._bytes) < body_end:
            return None
        response = Response(status, self._bytes[head_end + len(_HEAD_END) : body_end])
        self._bytes = self._bytes[body_end:]
        return response


def _parse_head(head: bytes) -> tuple[int, int]:
    """Status and length of the body."""
    first, *lines = head.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if version != b"HTTP/1.1" or not rest[:3].isdigit():
        raise LoadError(f"not an HTTP/1.1 response: {first[:60]!r}")
    headers = {name.lower(): value for name, _, value in (line.partition(b":") for line in lines)}
    length = headers.get(b"content-length", b"").strip()
    if not length.isdigit() or int(length) > _MAX_BODY_BYTES:
        raise LoadError("the response has no Content-Length, or a very large one")
    return int(rest[:3]), int(length)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed (nearest rank).

    Raises ValueError when there are none, or for a percentage outside 0 < percent <= 100.
    """
    if not values or not 0 < percent <= 100:
        raise ValueError("a percentile needs values, and a percentage above 0 and up to 100")
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


# --- a run ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What to do. `rate_per_s` None: closed loop, as fast as the gateway answers."""

    port: int
    connections: int
    requests: Sequence[bytes] = field(repr=False)
    rate_per_s: float | None = None
    timeout_s: float = 120.0


@dataclass(frozen=True)
class Report:
    """What came of it; `first_failure` is the text of the first answer that was not a 200."""

    took_s: float
    statuses: dict[int, int]
    p50_ms: float
    p99_ms: float
    max_ms: float
    first_failure: str | None = None

    @property
    def per_s(self) -> float:
        return self.statuses.get(_OK, 0) / self.took_s


async def apply_load(plan: Plan) -> Report:
    """Carry out a plan in a process of its own, on 127.0.0.1; raises LoadError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taprail_hwsim.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(plan.timeout_s):
            output, _ = await process.communicate(_encode(plan))
    except TimeoutError:
        raise LoadError(f"the load was not through in {plan.timeout_s:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise LoadError("the load's process failed; its traceback is above")
    report: dict[str, Any] = json.loads(output)
    report["statuses"] = {int(status): count for status, count in report["statuses"].items()}
    return Report(**report)


async def run(plan: Plan) -> Report:
    """Carry out a plan in this process."""
    if not plan.requests or plan.connections < 1:
        raise LoadError("a load needs requests and connections")
    return await _Run(plan).report()


class _Run:
    """Requests that are due wait in one queue; whichever connection is free takes the next."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._due: deque[tuple[float, bytes]] = deque()
        self._free: deque[_Connection] = deque()
        self._times_ms: list[float] = []
        self._statuses: Counter[int] = Counter()
        self._first_failure: str | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def report(self) -> Report:
        loop = asyncio.get_running_loop()
        connections = [
            (await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._plan.port))
            for _ in range(self._plan.connections)
        ]
        self._free.extend(connection for _, connection in connections)
        began_s = time.perf_counter()
        await self._offer_all(began_s)
        await self._ended
        took_s = time.perf_counter() - began_s
        for transport, _ in connections:
            transport.close()
        return Report(
            took_s,
            dict(self._statuses),
            percentile(self._times_ms, 50),
            percentile(self._times_ms, 99),
            max(self._times_ms),
            self._first_failure,
        )

    async def _offer_all(self, began_s: float) -> None:
        rate = self._plan.rate_per_s
        for number, request in enumerate(self._plan.requests):
            due_s = 0.0 if rate is None else began_s + number / rate
            wait_s = due_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self._due.append((due_s, request))
            self._serve()

    def _serve(self) -> None:
        while self._due and self._free:
            due_s, request = self._due.popleft()
            # In closed loop a request is due when there is a connection for it.
            self._free.popleft().send(request, due_s or time.perf_counter())

    def answered(self, connection: _Connection, response: Response, due_s: float) -> None:
        self._times_ms.append((time.perf_counter() - due_s) * 1000)
        self._statuses[response.status] += 1
        if response.status != _OK and self._first_failure is None:
            self._first_failure = response.body.decode(errors="replace")[:500]
        self._free.append(connection)
        self._serve()
        if len(self._times_ms) == len(self._plan.requests) and not self._ended.done():
            self._ended.set_result(None)

    def lost(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)


class _Connection(asyncio.Protocol):
    """One keep-alive connection, with one request under way at most."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._reader = ResponseReader()
        self._due_s = 0.0
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by its type

    def send(self, request: bytes, due_s: float) -> None:
        self._due_s = due_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            for response in self._reader.feed(data):
                self._run.answered(self, response, self._due_s)
        except LoadError as exc:
            self._run.lost(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.lost(exc or LoadError("the gateway closed a connection"))


# --- the process ----------------------------------------------------------------------------------


def _encode(plan: Plan) -> bytes:
    settings = {"port": plan.port, "connections": plan.connections, "rate_per_s": plan.rate_per_s}
    frames = [json.dumps(settings).encode(), *plan.requests]
    return b"".join(_LENGTH.pack(len(frame)) + frame for frame in frames)


def _decode(stream: BinaryIO) -> Plan:
    frames = []
    while head := stream.read(_LENGTH.size):
        (length,) = _LENGTH.unpack(head)
        frames.append(stream.read(length))
    settings, *requests = frames
    return Plan(requests=requests, **json.loads(settings))


def main() -> None:
    """Entry point of the load's process."""
    plan = _decode(sys.stdin.buffer)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(run(plan))
    sys.stdout.write(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
