"""Answers that a terminal believes: exact bytes, with the gateway's signature in a header."""

from __future__ import annotations

from aiohttp import web

from taprail_common.wire import SIGNATURE_HEADER


def signed_answer(body: bytes, signature: str) -> web.Response:
    """JSON as it was signed; `signature` is hex."""
    return web.Response(
        body=body, headers={SIGNATURE_HEADER: signature}, content_type="application/json"
    )
