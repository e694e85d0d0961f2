"""Every answer that is not a success, as JSON that says whose fault it is and what is wrong.

An error is never a verdict: it is not signed and says nothing about money. What was not foreseen is
logged under an id, and only the id leaves the house.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
from aiohttp import web

from taprail_common.errors import InputError, OperatorError, SignatureError, TapRailError
from taprail_common.ids import new_id

_log = structlog.get_logger("api")

RETRY_AFTER_S: Final = 1
"""What a queue that is full or a disk that is busy needs to get better."""


class HttpError(TapRailError):
    """An error with its HTTP status; `field` names the part of the request that is wrong.

    `request_id` joins a fault of ours in the log with the answer that somebody complains about.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.field = field
        self.headers = dict(headers or {})
        self.request_id = new_id("req")


def not_found(message: str, field: str | None = None) -> HttpError:
    """A 404: there is no such thing, or it is none of the caller's business."""
    return HttpError(404, "not_found", message, field=field)


def unauthenticated(code: str, message: str, field: str | None = None) -> HttpError:
    """A 401: we do not know who is asking."""
    return HttpError(401, code, message, field=field, headers={"WWW-Authenticate": "Bearer"})


def error_response(error: HttpError) -> web.Response:
    """The error as JSON."""
    body: dict[str, object] = {
        "success": False,
        "error": error.message,
        "reasonCode": error.code,
    }
    if error.field is not None:
        body["field"] = error.field
    if error.status >= 500:
        body["requestId"] = error.request_id
        # "Come again" is an answer that was meant to be given; all else is a fault of ours.
        tell = _log.warning if error.status == 503 else _log.error
        tell("api.failed", status=error.status, code=error.code, request=error.request_id)
    return web.Response(
        body=json.dumps(body).encode(),
        status=error.status,
        headers=error.headers,
        content_type="application/json",
    )


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn whatever a handler raises into an answer."""
    try:
        return await handler(request)
    except (HttpError, TapRailError) as exc:
        return error_response(_as_http(exc))
    except web.HTTPException as exc:
        return error_response(_of_framework(exc))
    except TimeoutError:
        return error_response(_unavailable("timeout", "this took too long; ask again"))
    except Exception:  # noqa: BLE001 - the supervised top of every request: logged, told as a 500
        error = _fault()
        _log.exception("api.unexpected", method=request.method, request=error.request_id)
        return error_response(error)


def _as_http(error: TapRailError) -> HttpError:
    if isinstance(error, HttpError):
        return error
    if isinstance(error, InputError):
        return HttpError(400, error.code, error.message, field=error.field)
    if isinstance(error, OperatorError) and error.code in _OF_OPERATORS:
        return HttpError(_OF_OPERATORS[error.code], error.code, error.message)
    if isinstance(error, SignatureError):
        return unauthenticated(error.code, error.message)
    if error.retryable:
        return _unavailable(error.code, "busy; ask again")
    _log.error("api.refused_by_ourselves", code=error.code, reason=error.message)
    return _fault()


_OF_OPERATORS: Final = {"not_found": 404, "wrong_state": 409, "exists": 409}
"""What somebody can put right who asked for something that cannot be done."""


def _fault() -> HttpError:
    """What came of it is unknown: whoever asks again by the same key learns it, and pays once."""
    message = "something went wrong here; ask again, a payment or refund with the same key"
    return HttpError(500, "internal", message, headers={"Retry-After": str(RETRY_AFTER_S)})


def _unavailable(code: str, message: str) -> HttpError:
    return HttpError(503, code, message, headers={"Retry-After": str(RETRY_AFTER_S)})


_FRAMEWORK_CODES: Final = {
    404: ("not_found", "there is nothing at this address"),
    405: ("method_not_allowed", "this address does not take that method"),
    413: ("too_large", "the body is too large"),
}


def _of_framework(error: web.HTTPException) -> HttpError:
    code, message = _FRAMEWORK_CODES.get(error.status, ("bad_request", error.reason))
    field = "body" if error.status == 413 else None
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return HttpError(error.status, code, message, field=field, headers=headers)
