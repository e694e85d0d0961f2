"""The load generator: its requests are a terminal's, its arithmetic and its HTTP are right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from nacl.signing import SigningKey

from taprail_common import sun
from taprail_common.errors import SignatureError
from taprail_common.signing import Domain, verify
from taprail_common.wire import (
    SIGNATURE_HEADER,
    TAP_VALIDITY_MS,
    TERMINAL_HEADER,
    SunProof,
    TerminalPayment,
    parse,
)
from taprail_hwsim.cards.ntag424 import Ntag424
from taprail_hwsim.load import (
    LoadError,
    Plan,
    ResponseReader,
    Till,
    apply_load,
    payments,
    percentile,
    run,
)

TAPPED_AT_MS = 1_717_171_717_123
META_KEY, FILE_KEY = bytes(range(16)), bytes(range(16, 32))
UIDS = (bytes.fromhex("04112233445566"), bytes.fromhex("04778899AABBCC"))


@pytest.fixture
def till() -> Till:
    return Till("load-1", "kiosk", "DUSD", SigningKey(bytes(32)))


@pytest.fixture
def cards() -> list[Ntag424]:
    return [Ntag424(uid, META_KEY, FILE_KEY) for uid in UIDS]


def split(request: bytes) -> tuple[str, dict[str, str], bytes]:
    """First line, headers and body of an HTTP request."""
    head, body = request.split(b"\r\n\r\n", 1)
    first, *lines = head.decode().split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


class TestRequests:
    def test_are_what_a_gateway_reads(self, till: Till, cards: list[Ntag424]) -> None:
        (request,) = payments(till, cards, 1, amount_units=250, tapped_at_ms=TAPPED_AT_MS)
        first, headers, body = split(request)
        message = parse(TerminalPayment, body)
        assert first == "POST /api/payment/process-async HTTP/1.1"
        assert headers[TERMINAL_HEADER] == "load-1"
        assert int(headers["Content-Length"]) == len(body)
        assert (message.terminal_id, message.merchant_id) == ("load-1", "kiosk")
        assert (message.amount, message.currency) == (250, "DUSD")
        assert message.tapped_at_ms == TAPPED_AT_MS
        assert message.accept_until_ms == TAPPED_AT_MS + TAP_VALIDITY_MS

    def test_are_signed_as_a_payment_and_as_nothing_else(
        self, till: Till, cards: list[Ntag424]
    ) -> None:
        (request,) = payments(till, cards, 1, amount_units=250, tapped_at_ms=TAPPED_AT_MS)
        _, headers, body = split(request)
        public_key, signature = till.key.verify_key, headers[SIGNATURE_HEADER]
        verify(public_key, Domain.PAYMENT_REQUEST, body, signature)
        with pytest.raises(SignatureError):
            verify(public_key, Domain.QUERY, body, signature)
        with pytest.raises(SignatureError):
            verify(public_key, Domain.PAYMENT_REQUEST, body + b" ", signature)

    def test_take_the_cards_in_turn_with_rising_counters_and_ids_of_their_own(
        self, till: Till, cards: list[Ntag424]
    ) -> None:
        requests = payments(till, cards, 5, amount_units=1, tapped_at_ms=TAPPED_AT_MS)
        messages = [parse(TerminalPayment, split(request)[2]) for request in requests]
        seen = []
        for message in messages:
            assert isinstance(message.proof, SunProof)
            picc = sun.decrypt_picc_data(META_KEY, bytes.fromhex(message.proof.picc_data))
            seen.append((picc.uid, picc.counter))
        one, other = UIDS
        assert seen == [(one, 1), (other, 1), (one, 2), (other, 2), (one, 3)]
        assert len({message.request_id for message in messages}) == 5


class TestPercentile:
    @pytest.mark.parametrize(
        ("percent", "expected"), [(1, 1), (50, 50), (50.1, 51), (99, 99), (99.1, 100), (100, 100)]
    )
    def test_is_the_nearest_rank(self, percent: float, expected: float) -> None:
        assert percentile([float(n) for n in range(100, 0, -1)], percent) == expected

    def test_of_one_value_is_that_value(self) -> None:
        assert percentile([7.0], 1) == percentile([7.0], 99) == 7.0

    @pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 100.1)])
    def test_refuses_what_has_no_answer(self, values: list[float], percent: float) -> None:
        with pytest.raises(ValueError, match="percentile"):
            percentile(values, percent)


class TestResponseReader:
    def test_reads_responses_however_they_are_cut(self) -> None:
        wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        wire += b"HTTP/1.1 400 Bad Request\r\ncontent-length:0\r\nX: y\r\n\r\n"
        for size in (1, 7, len(wire)):
            reader, got = ResponseReader(), []
            for start in range(0, len(wire), size):
                got += list(reader.feed(wire[start : start + size]))
            assert [(r.status, r.body) for r in got] == [(200, b"hello"), (400, b"")]

    @pytest.mark.parametrize(
        "wire",
        [
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 twohundred\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
            b"a" * 20_000,
        ],
    )
    def test_refuses_what_it_cannot_count(self, wire: bytes) -> None:
        with pytest.raises(LoadError):
            list(ResponseReader().feed(wire))


Answer = Callable[[int], bytes]


async def serve(answer: Answer) -> tuple[asyncio.Server, int, list[bytes]]:
    """A server that answers the n-th request of all with `answer(n)`; empty hangs up."""
    taken: list[bytes] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                taken.append(await reader.readuntil(b"\r\n\r\n"))
                reply = answer(len(taken))
                if not reply:
                    break
                writer.write(reply)
        except asyncio.IncompleteReadError:
            pass  # the load is through
        finally:
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], taken


def ok(_number: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def numbered(count: int) -> list[bytes]:
    return [b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(count)]


class TestRun:
    @pytest.mark.parametrize("rate_per_s", [None, 2_000.0])
    async def test_sends_each_request_once(self, rate_per_s: float | None) -> None:
        server, port, taken = await serve(ok)
        async with server:
            report = await run(Plan(port, 4, numbered(100), rate_per_s))
        assert report.statuses == {200: 100}
        assert report.first_failure is None
        assert sorted(taken) == sorted(numbered(100))
        assert 0 < report.p50_ms <= report.p99_ms <= report.max_ms

    async def test_counts_the_wait_for_a_connection_in_open_loop(self) -> None:
        """All are due at once and one connection serves them: the last has waited longest."""
        server, port, _ = await serve(ok)
        async with server:
            report = await run(Plan(port, 1, numbered(200), rate_per_s=1e9))
        assert report.max_ms == pytest.approx(report.took_s * 1000, rel=0.5)
        assert report.p50_ms > report.max_ms / 5

    async def test_tells_the_first_answer_that_is_no_200(self) -> None:
        refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 9\r\n\r\nnot today"
        server, port, _ = await serve(lambda n: refusal if n % 2 else ok(n))
        async with server:
            report = await run(Plan(port, 1, numbered(4)))
        assert report.statuses == {200: 2, 400: 2}
        assert report.first_failure == "not today"

    async def test_fails_when_the_server_hangs_up(self) -> None:
        server, port, _ = await serve(lambda n: ok(n) if n < 3 else b"")
        async with server:
            with pytest.raises(LoadError, match="closed a connection"):
                await run(Plan(port, 1, numbered(5)))

    async def test_refuses_an_empty_plan(self) -> None:
        with pytest.raises(LoadError):
            await run(Plan(1, 1, []))

    async def test_runs_in_a_process_of_its_own(self) -> None:
        server, port, taken = await serve(ok)
        async with server:
            report = await apply_load(Plan(port, 2, numbered(20)))
        assert report.statuses == {200: 20}
        assert len(taken) == 20

    async def test_gives_up_on_a_server_that_is_silent(self) -> None:
        never = asyncio.Event()

        async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await never.wait()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LoadError, match="was not through"):
            await apply_load(Plan(port, 1, numbered(1), timeout_s=1.0))
        never.set()
        server.close()
