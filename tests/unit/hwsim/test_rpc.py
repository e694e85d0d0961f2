"""The JSON-RPC client against a real HTTP server that answers well, badly or not at all."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from taprail_hwsim import rpc
from taprail_hwsim.rpc import JsonRpc, RpcRefusedError, RpcUnreachableError

Answer = Callable[[Any], tuple[int, bytes]]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """An HTTP server on a port of its own which answers a decoded request with (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = answer(request)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http_server.server_address[1]}"
        finally:
            http_server.shutdown()
            thread.join()


def ok(document: Any) -> tuple[int, bytes]:
    return 200, json.dumps(document).encode()


def test_a_call_sends_its_parameters_and_returns_the_result() -> None:
    def echo(request: Any) -> tuple[int, bytes]:
        assert request["jsonrpc"] == "2.0"
        return ok({"id": request["id"], "result": [request["method"], request["params"]]})

    with server(echo) as url:
        assert JsonRpc(url).call("eth_call", {"to": "0x1"}, "latest") == [
            "eth_call",
            [{"to": "0x1"}, "latest"],
        ]


def test_a_null_result_is_a_result() -> None:
    with server(lambda request: ok({"id": request["id"], "result": None})) as url:
        assert JsonRpc(url).call("eth_getTransactionReceipt", "0x") is None


def test_a_refusal_carries_the_nodes_own_words() -> None:
    error = {"code": -32003, "message": "nonce too low", "data": "0x08"}
    with (
        server(lambda request: ok({"id": request["id"], "error": error})) as url,
        pytest.raises(RpcRefusedError, match="nonce too low") as raised,
    ):
        JsonRpc(url).call("eth_sendRawTransaction", "0x")
    assert (raised.value.code, raised.value.data) == (-32003, "0x08")


def test_a_batch_is_matched_by_id_whatever_the_order() -> None:
    def backwards(requests: Any) -> tuple[int, bytes]:
        return ok([{"id": one["id"], "result": one["params"][0]} for one in reversed(requests)])

    with server(backwards) as url:
        node = JsonRpc(url)
        assert node.batch([("m", [number]) for number in range(5)]) == list(range(5))
        assert node.batch([]) == []


def test_a_batch_with_an_answer_missing_is_not_complete() -> None:
    with (
        server(lambda requests: ok([{"id": requests[0]["id"], "result": 1}])) as url,
        pytest.raises(RpcUnreachableError, match="neither"),
    ):
        JsonRpc(url).batch([("m", []), ("m", [])])


@pytest.mark.parametrize(
    "reply",
    [(502, b"bad gateway"), (200, b"not json"), (200, b"[]"), (200, b"{}"), (200, b"\xff")],
)
def test_what_is_no_answer_leaves_the_outcome_open(reply: tuple[int, bytes]) -> None:
    with server(lambda _: reply) as url, pytest.raises(RpcUnreachableError):
        JsonRpc(url).call("eth_blockNumber")


def test_a_huge_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MAX_REPLY_BYTES", 1000)
    with (
        server(lambda _: (200, b" " * 2000)) as url,
        pytest.raises(RpcUnreachableError, match="larger than 1000"),
    ):
        JsonRpc(url).call("eth_getLogs")


def test_a_server_that_hangs_costs_no_more_than_the_timeout() -> None:
    released = threading.Event()

    def hang(request: Any) -> tuple[int, bytes]:
        released.wait(30)
        return ok({"id": request["id"], "result": 1})

    with server(hang) as url:
        try:
            with pytest.raises(RpcUnreachableError, match="timed out"):
                JsonRpc(url, timeout_s=0.1).call("eth_chainId")
        finally:
            released.set()


def test_nobody_there_is_unreachable() -> None:
    with server(lambda _: ok({})) as url:
        pass
    with pytest.raises(RpcUnreachableError, match="refused"):
        JsonRpc(url).call("eth_chainId")


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1", "127.0.0.1:8545", "http://"])
def test_only_http_urls(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        JsonRpc(url)
