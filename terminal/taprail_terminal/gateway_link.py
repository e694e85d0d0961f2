"""The way to the gateway: posts requests, and believes only what its key has signed.

Answers for getting a verdict on one request, however long that takes, with the same bytes each
time. An HTTP status, an error page, a time-out or a signature that does not verify say nothing
about the money: they are no answer, and the request is posted again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import structlog
from nacl.signing import VerifyKey

from taprail_common.api.gateway import Hello
from taprail_common.client.exchange import (
    Bounds,
    Exchange,
    Reply,
    WrongCertificateError,
    pauses_s,
)
from taprail_common.client.pins import PinnedCertificates
from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.errors import InputError, LinkError, OperatorError, SignatureError
from taprail_common.signing import Domain, gateway_id, verify
from taprail_common.succession import successor
from taprail_common.wire import (
    CLOCK_SKEW_MS,
    MAX_BODY_BYTES,
    PAYMENT_PATH,
    SIGNATURE_HEADER,
    Verdict,
    parse,
)
from taprail_terminal.identity import Identity, SignedQuery
from taprail_terminal.outbox import Evidence, OutboxRow
from taprail_terminal.reach import Reach
from taprail_terminal.tls_pins import Pins

HELLO_PATH: Final = "/api/terminals/hello"

FIRST_RETRY_S: Final = 0.25
LAST_RETRY_S: Final = 15.0
ATTEMPT_LIMIT_S: Final = 5.0
CONNECT_LIMIT_S: Final = 2.0
WARM_EVERY_S: Final = 20.0
"""Below the 60 to 75 s after which common proxies close an idle connection."""
_BOUNDS: Final = Bounds(ATTEMPT_LIMIT_S, CONNECT_LIMIT_S, 4, MAX_BODY_BYTES)

_ANOTHER_KEY: Final = (
    "compare [terminal] gateway_public_key with what `taprail admin init` prints at the gateway"
)

_UNAUTHENTICATED: Final = 401
_REFUSALS: Final = range(400, 500)
_NOT_KNOWN: Final = (
    "is this terminal registered there with this key? `key fingerprint`, and at the gateway"
    " `taprail admin terminal list`"
)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Believed:
    """A verdict that is the gateway's, about this very request, with its evidence."""

    verdict: Verdict
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Greeting:
    """A hello, and what it tells of clock and line."""

    hello: Hello
    clock_offset_ms: int
    """The gateway's clock minus ours, half of the round trip taken off."""
    round_trip_ms: int
    received_s: float
    """When it came, by the clock that nobody sets."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the configuration says; the gateway must say the same."""

    gateway_url: str
    gateway_key: VerifyKey
    merchant_id: str
    currency: str
    decimals: int
    former_key: VerifyKey | None = None
    """The gateway's key before it changed, which has signed verdicts on requests of then."""
    former_until_ms: int = 0


class ClockSkewError(LinkError):
    """The gateway takes nothing from a clock that is so far off."""

    code = "clock_skew"

    def __init__(self, offset_ms: int) -> None:
        side = "behind" if offset_ms > 0 else "ahead of"
        super().__init__(
            f"the gateway refuses what is not of now: this clock is {abs(offset_ms) // 1000} s"
            f" {side} its own",
            fix="set the time: timedatectl set-ntp true",
        )
        self.offset_ms = offset_ms
        """The gateway's clock minus ours, as it says without a signature: for people only."""


class RefusedError(LinkError):
    """Whoever answers there takes nothing from this terminal as it is."""

    code = "gateway_refuses"


class GatewayKeyChangedError(LinkError):
    """The gateway has another key, which the one before has named."""

    code = "gateway_key_changed"


def believe(key: VerifyKey, terminal_id: str, row: OutboxRow, evidence: Evidence) -> Verdict:
    """The verdict, when it is the gateway's and about this very request.

    Raises SignatureError, InputError or LinkError, and then it is worth nothing.
    """
    verify(key, Domain.VERDICT, evidence.body, evidence.signature, about=row.body)
    verdict = parse(Verdict, evidence.body)
    said = (verdict.request_id, verdict.terminal_id, verdict.amount, verdict.currency)
    if said != (row.request_id, terminal_id, row.amount_units, row.currency):
        raise LinkError("the verdict is about another payment")
    return verdict


def retry_pauses_s() -> Iterator[float]:
    """Pauses between posts."""
    return pauses_s(FIRST_RETRY_S, LAST_RETRY_S)


class GatewayLink:
    """One terminal's HTTP connection to its gateway."""

    def __init__(
        self,
        expected: Expected,
        identity: Identity,
        clock: Clock,
        on_successor: Callable[[VerifyKey], None] | None = None,
        pins: Pins | None = None,
    ) -> None:
        self._pins = pins
        self._on_successor = on_successor
        self._doubt = asyncio.Event()
        self._expected = expected
        self._identity = identity
        self._clock = clock
        checks = None if pins is None else pins.checks
        self._exchange = Exchange(expected.gateway_url, _BOUNDS, checks)
        self._hurry = asyncio.Event()
        self.greeting: Greeting | None = None
        """The last one; None until the gateway was reached once."""
        self.reachable = False
        self.reach = Reach(clock)

    def clock_offset_ms(self) -> int:
        """The gateway's clock minus ours, as the last greeting told it."""
        return 0 if self.greeting is None else self.greeting.clock_offset_ms

    async def open(self) -> None:
        """Make the connection pool; nothing is sent yet."""
        await self._exchange.open()

    async def close(self) -> None:
        """Drop all connections."""
        await self._exchange.close()

    async def ask(self, row: OutboxRow, on_sent: Callable[[], None] | None = None) -> Believed:
        """Post the request's exact bytes until a believable verdict comes. `on_sent` is called
        whenever they were handed to the network."""
        for pause_s in retry_pauses_s():
            try:
                return await self._post(row, on_sent)
            except (LinkError, SignatureError, InputError) as exc:
                self.doubt()  # is it there, and has its key changed?
                _log.warning("no verdict yet", request=row.request_id, reason=str(exc))
            await self._wait(pause_s)
        raise AssertionError("the pauses never end")

    def hurry(self) -> None:
        """End the pauses before the next posts: there is reason to think that they get through."""
        self._hurry.set()
        self._hurry = asyncio.Event()

    def doubt(self) -> None:
        """Something has failed that works where the gateway is there: greet it at once."""
        self._doubt.set()

    async def greet(self) -> Greeting:
        """Ask the gateway who it is. Raises LinkError without a verified answer, and OperatorError
        when it and the configuration do not agree about this terminal."""
        started_ms, started_s = self._clock.now_ms(), self._clock.monotonic_s()
        query = self._identity.query("GET", HELLO_PATH, started_ms)
        try:
            reply, shown = await self._say_hello(query)
            _doubt_clock(reply, self._clock.now_ms())
            evidence = _evidence(reply)
            await self._check_key(query.signed, evidence)
            hello = parse(Hello, evidence.body)
        except (SignatureError, InputError) as exc:
            raise LinkError(
                f"the gateway's greeting cannot be believed ({exc})", fix=_ANOTHER_KEY
            ) from exc
        received_s = self._clock.monotonic_s()
        round_trip_ms = round((received_s - started_s) * 1000)
        offset_ms = hello.gateway_time - started_ms - round_trip_ms // 2
        self._check(hello)
        await self._hear_pins(hello, shown)
        self.greeting = Greeting(hello, offset_ms, round_trip_ms, received_s)
        if self.reach.away:
            self.hurry()
        self.reach.greeted()
        return self.greeting

    async def _say_hello(self, query: SignedQuery) -> tuple[Reply, str | None]:
        """The answer to a greeting; and, where the certificate was not known, which one it was.
        Nothing else is sent to whoever shows that one."""
        try:
            return await self._exchange.send("GET", HELLO_PATH, headers=query.headers), None
        except WrongCertificateError:
            learning = PinnedCertificates((), learns=True)
            url = self._expected.gateway_url
            async with Exchange(url, _BOUNDS, learning) as stranger:
                reply = await stranger.send("GET", HELLO_PATH, headers=query.headers)
            return reply, learning.seen

    async def _hear_pins(self, hello: Hello, shown: str | None) -> None:
        """Know the certificates that the gateway's key has told of. Raises WrongCertificateError
        when the one that was shown is none of them: then somebody sits between."""
        if shown is not None and shown not in hello.tls_pins:
            raise WrongCertificateError(
                f"whoever answers shows a certificate that is not the gateway's ({shown[:16]}…)",
                fix="find out who sits between this terminal and its gateway",
            )
        if self._pins is not None:
            await asyncio.to_thread(self._pins.hear, hello.tls_pins)

    async def fetch(self, path: str) -> Evidence:
        """A signed question; the signature of the answer is the caller's to check."""
        query = self._identity.query("GET", path, self._clock.now_ms())
        return _evidence(await self._exchange.send("GET", path, headers=query.headers))

    async def tell(self, path: str, body: bytes, domain: Domain) -> bytes:
        """Post a signed body once; the answer is the gateway's, about this body. Raises LinkError,
        SignatureError."""
        headers = self._identity.request_headers(self._identity.sign_body(domain, body))
        reply = await self._exchange.send("POST", path, body=body, headers=headers)
        evidence = _evidence(reply)
        key = self._expected.gateway_key
        verify(key, Domain.ANSWER, evidence.body, evidence.signature, about=body)
        return evidence.body

    async def keep_warm(self) -> None:
        """Greet now and then, so that a tap finds an open connection. Raises OperatorError."""
        pauses_s = retry_pauses_s()
        while True:
            try:
                greeting = await self.greet()
            except GatewayKeyChangedError:
                raise
            except LinkError as exc:
                if self.reachable or self.greeting is None:
                    _log.warning("gateway out of reach", reason=str(exc))
                self.reachable = False
                self.reach.tried(is_there=is_refusal(exc))
                await asyncio.sleep(next(pauses_s))
                continue
            if not self.reachable:
                offset_ms = greeting.clock_offset_ms
                _log.info("gateway in reach", status=greeting.hello.status, clock_ms=offset_ms)
                self.hurry()
            self.reachable, pauses_s = True, retry_pauses_s()
            with suppress(TimeoutError):
                async with asyncio.timeout(WARM_EVERY_S):
                    await self._doubt.wait()
            self._doubt.clear()

    async def _post(self, row: OutboxRow, on_sent: Callable[[], None] | None) -> Believed:
        # The key may have changed since it was stored; by the same one it is the same signature.
        signature = self._identity.sign_request(row.body)
        headers = self._identity.request_headers(signature)
        reply = await self._exchange.send(
            "POST", PAYMENT_PATH, body=row.body, headers=headers, on_sent=on_sent
        )
        crash("tap.sent")
        evidence = _evidence(reply)
        terminal_id = self._identity.terminal_id
        expected = self._expected
        try:
            verdict = believe(expected.gateway_key, terminal_id, row, evidence)
        except SignatureError:
            if expected.former_key is None or row.stored_at_ms > expected.former_until_ms:
                raise
            verdict = believe(expected.former_key, terminal_id, row, evidence)
        return Believed(verdict, evidence)

    async def _check_key(self, asked: bytes, evidence: Evidence) -> None:
        """Raise SignatureError unless this is the gateway's answer, and GatewayKeyChangedError
        when it is by the key that the one we know has named, once that is stored."""
        key, signature = self._expected.gateway_key, evidence.signature
        try:
            verify(key, Domain.ANSWER, evidence.body, signature, about=asked)
        except SignatureError:
            new = successor(key, parse(Hello, evidence.body).successions)
            if new == key or self._on_successor is None:
                raise
            verify(new, Domain.ANSWER, evidence.body, signature, about=asked)
            await asyncio.to_thread(self._on_successor, new)
            raise GatewayKeyChangedError("the gateway's key was followed by another one") from None

    async def _wait(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._hurry.wait()
        except TimeoutError:
            return

    def _check(self, hello: Hello) -> None:
        expected = self._expected
        pairs = {
            "gateway_public_key": (gateway_id(expected.gateway_key), hello.gateway_id),
            "id": (self._identity.terminal_id, hello.terminal_id),
            "merchant_id": (expected.merchant_id, hello.merchant_id),
            "currency": (expected.currency, hello.currency),
            "decimals": (expected.decimals, hello.decimals),
        }
        for name, (ours, theirs) in pairs.items():
            if ours != theirs:
                raise OperatorError(
                    f"[terminal] {name} is {ours}, the gateway has {theirs}",
                    fix="correct the configuration, or what `taprail admin` registered",
                )


def _evidence(reply: Reply) -> Evidence:
    """Body and signature of an answer; its status is not signed and decides nothing."""
    signature = reply.headers.get(SIGNATURE_HEADER)
    if signature is None:
        kind = RefusedError if reply.status in _REFUSALS else LinkError
        raise kind(
            f"the gateway answered {reply.status} without a signature",
            fix=_NOT_KNOWN if reply.status == _UNAUTHENTICATED else "",
        )
    return Evidence(reply.body, signature)


def _doubt_clock(reply: Reply, now_ms: int) -> None:
    """Raise ClockSkewError where an answer is unsigned and dated far from now: a gateway refuses a
    question that is not fresh, and cannot say so to whom it does not believe. Nobody has signed the
    date, so it is shown to people and never reckoned with."""
    if reply.status != _UNAUTHENTICATED or SIGNATURE_HEADER in reply.headers:
        return
    try:
        there = parsedate_to_datetime(reply.headers.get("Date", ""))
        offset_ms = round(there.timestamp() * 1000) - now_ms
    except (ValueError, OverflowError):
        return
    if abs(offset_ms) > CLOCK_SKEW_MS:
        raise ClockSkewError(offset_ms)


def is_refusal(exc: LinkError) -> bool:
    """Whether it is by somebody who is there: that is no leave to sell without the gateway. What a
    proxy says of a gateway behind it (5xx) is none."""
    return isinstance(exc, RefusedError | ClockSkewError)


def origin(url: str) -> str:
    """The address without path and query, for people; a URL may hold a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
