"""Reads request bodies: bounded in size and time, JSON by name, and no name twice.

A repeated name is refused because readers differ in which of the two they believe (RFC 8259
section 4): what was signed must mean one thing to everybody.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final, TypeVar

from aiohttp import ClientError, web
from pydantic import BaseModel

from taprail_common.errors import InputError
from taprail_common.wire import parse
from taprail_gateway.api.errors import HttpError

_READ_TIMEOUT_S: Final = 5.0
"""A body is one packet; who needs longer holds a connection on purpose or has lost it."""

M = TypeVar("M", bound=BaseModel)


async def read_body(request: web.Request) -> bytes:
    """The body's bytes as they were sent; raises HttpError: 415 unless it is plain JSON, 413 when
    too large, 408 when too slow, 400 when it breaks off."""
    if request.content_type != "application/json":
        raise HttpError(
            415, "unsupported_media_type", "send application/json", field="Content-Type"
        )
    # Signatures are over the bytes that travel, and a bound on them must be one on their meaning.
    if "Content-Encoding" in request.headers:
        raise HttpError(
            415, "unsupported_media_type", "send it uncompressed", field="Content-Encoding"
        )
    try:
        if request.content.is_eof():  # it came in one packet with its head: nothing to wait for
            return await request.read()
        async with asyncio.timeout(_READ_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise HttpError(408, "body_timeout", "the body came too slowly", field="body") from None
    except (ClientError, ConnectionError, web.RequestPayloadError):
        raise HttpError(400, "bad_request", "the body broke off", field="body") from None


def parse_body(model: type[M], body: bytes) -> M:
    """Read a message; raises InputError naming the first wrong, unknown or repeated field."""
    message = parse(model, body)
    # Only now: the model's reader has bounded how deep the JSON is nested.
    _REPEATS.decode(body.decode())
    return message


def _refuse_repeated(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(repeated[:64], "stands there twice")


_REPEATS: Final = json.JSONDecoder(object_pairs_hook=_refuse_repeated)
