"""A small JSON-RPC client for the simulator: synchronous, bounded in time and size, thread-safe.

Answers for transport and for telling a node's refusal from a node that cannot be reached. It knows
no Ethereum, retries nothing, and shares no code with the gateway, whose work it helps to judge.
"""

import http.client
import itertools
import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

DEFAULT_TIMEOUT_S = 10.0
# A page of a busy block's logs is some 3 MB; far more than that is no answer to our questions.
MAX_REPLY_BYTES = 64 * 1024 * 1024
_READ_BYTES = 256 * 1024


class RpcError(Exception):
    """A JSON-RPC call did not bring a result."""


class RpcUnreachableError(RpcError):
    """No whole answer in time. The node may or may not have done what it was asked to do."""


class RpcRefusedError(RpcError):
    """The node answered with an error. `code` and `message` are its own words."""

    def __init__(self, method: str, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.code = code
        self.message = message
        self.data = data


class JsonRpc:
    """Calls methods of one node. Holds no connection, so any thread may use it at any time."""

    def __init__(self, url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"not an http(s) URL: {url!r}")
        self.url = url
        self.timeout_s = timeout_s
        self._parts = parts
        self._ids = itertools.count(1)

    def call(self, method: str, *params: Any) -> Any:
        """The call's result. Raises RpcRefusedError or RpcUnreachableError."""
        answer = self._post(self._request(method, params))
        if not isinstance(answer, dict):
            raise RpcUnreachableError(f"{method}: the answer is no JSON-RPC object")
        return _result(method, answer)

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Results of many calls in one request, in their order; the first refused one raises."""
        if not calls:
            return []
        requests = [self._request(method, params) for method, params in calls]
        answers = self._post(requests)
        if not isinstance(answers, list):
            raise RpcUnreachableError("the answer to a batch is no JSON array")
        by_id = {answer.get("id"): answer for answer in answers if isinstance(answer, dict)}
        return [_result(request["method"], by_id.get(request["id"], {})) for request in requests]

    def _request(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}

    def _post(self, document: Any) -> Any:
        deadline = time.monotonic() + self.timeout_s
        connection = self._connection()
        try:
            connection.request(
                "POST",
                self._parts.path or "/",
                body=json.dumps(document),
                headers={"Content-Type": "application/json"},
            )
            response = connection.getresponse()
            body = _read(response, deadline)
            if response.status != http.HTTPStatus.OK:
                raise RpcUnreachableError(f"{self.url} answered with HTTP {response.status}")
            return json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RpcUnreachableError(f"{self.url}: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        return kind(self._parts.hostname or "", self._parts.port, timeout=self.timeout_s)


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body, against a deadline: the socket's own timeout starts anew with every byte."""
    body = bytearray()
    while chunk := response.read1(_READ_BYTES):
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise RpcUnreachableError(f"the answer is larger than {MAX_REPLY_BYTES} bytes")
        if time.monotonic() > deadline:
            raise RpcUnreachableError("the answer did not end in time")
    return bytes(body)


def _result(method: str, answer: dict[str, Any]) -> Any:
    if isinstance(error := answer.get("error"), dict):
        code, message = error.get("code", 0), error.get("message", "")
        raise RpcRefusedError(method, int(code), str(message), error.get("data"))
    if "result" not in answer:
        raise RpcUnreachableError(f"{method}: the answer has neither a result nor an error")
    return answer["result"]
