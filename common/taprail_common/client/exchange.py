"""Requests to one gateway: bounded in time, in size, and in how many there are at once.

Answers for bytes only. A status is given as it is, redirects are not followed, cookies are not
kept; an answer that did not come whole is a LinkError, which says nothing about what was asked.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp

from taprail_common.client.pins import PinnedCertificates
from taprail_common.errors import LinkError

MAX_ANSWER_BYTES: Final = 1024 * 1024
"""A page of two hundred payments is under 200 KiB."""

_MAX_WORDS: Final = 200


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long one request may take, and how many there are at once."""

    attempt_s: float = 10.0
    connect_s: float = 2.0
    connections: int = 10
    answer_bytes: int = MAX_ANSWER_BYTES


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered; header names are read in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotSentError(LinkError):
    """There was no connection, so nothing was asked: it may be asked again, whatever it is."""

    code = "not_sent"


class WrongCertificateError(NotSentError):
    """Somebody else answers at the gateway's address, or it has another certificate."""

    code = "wrong_certificate"


class Exchange:
    """One gateway's address and connections to it: `async with`, or `open` and `close`."""

    def __init__(
        self, url: str, bounds: Bounds | None = None, pins: PinnedCertificates | None = None
    ) -> None:
        self._url = url
        self._pins = pins
        self._bounds = bounds or Bounds()
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connection pool; nothing is sent yet."""
        bounds = self._bounds
        self._session = aiohttp.ClientSession(
            base_url=self._url,
            connector=aiohttp.TCPConnector(
                limit=bounds.connections, keepalive_timeout=60, ssl=self._pins or True
            ),
            timeout=aiohttp.ClientTimeout(total=bounds.attempt_s, sock_connect=bounds.connect_s),
            trace_configs=[_sent_trace()],
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Drop all connections."""
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> Reply:
        """Ask once; `on_sent` is called when the bytes were handed to the network. LinkError when
        no whole answer came."""
        async with self._asked(method, path, body, query, headers, on_sent) as response:
            answer = b""
            async for chunk in response.content.iter_chunked(16 * 1024):
                answer += chunk
                if len(answer) > self._bounds.answer_bytes:
                    raise LinkError("the gateway's answer is too long")
        return Reply(response.status, response.headers, answer)

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """GET what may be long: the status, and the bytes piece by piece."""
        async with self._asked("GET", path, None, query, headers, None) as response:
            yield response.status, response.content.iter_chunked(16 * 1024)

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        body: bytes | None,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        on_sent: Callable[[], None] | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise LinkError("the link is not open")
        try:
            async with self._session.request(
                method,
                path,
                data=body,
                params=query,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=on_sent,
            ) as response:
                yield response
        except aiohttp.ServerFingerprintMismatch as exc:
            raise WrongCertificateError(
                f"{exc.host}:{exc.port} shows a certificate that is not the gateway's"
                f" ({exc.got.hex()[:16]}…)",
                fix="find out who answers there; if the gateway is new, pair the terminal anew",
            ) from exc
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            raise NotSentError(_words(exc), fix="check the network and the address") from exc
        except (TimeoutError, aiohttp.ClientError) as exc:
            raise LinkError(_words(exc)) from exc


def pauses_s(first_s: float, last_s: float) -> Iterator[float]:
    """Pauses between attempts: doubling, spread by a quarter so that callers do not march."""
    pause_s = first_s
    while True:
        yield pause_s * (0.75 + secrets.randbelow(501) / 1000)
        pause_s = min(pause_s * 2, last_s)


def _sent_trace() -> aiohttp.TraceConfig:
    trace = aiohttp.TraceConfig()

    async def sent(_session: object, context: object, _params: object) -> None:
        on_sent = getattr(context, "trace_request_ctx", None)
        if on_sent is not None:
            on_sent()

    trace.on_request_chunk_sent.append(sent)
    return trace


def _words(exc: BaseException) -> str:
    return str(exc)[:_MAX_WORDS] or type(exc).__name__
