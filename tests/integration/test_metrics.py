"""What Prometheus reads: measured, for this machine alone by default, and nobody's secret."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from taprail_gateway.api.metrics import Metrics, Shown
from tests.support.gateway_fixtures import PATH, TERMINAL, TestGateway, running_gateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


async def read(gateway: TestGateway) -> str:
    async with gateway.http.get("/metrics") as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        return await response.text()


async def test_figures_are_of_what_happened(gateway: TestGateway) -> None:
    card = gateway.card()
    accepted = await gateway.pay(card)
    await gateway.post(b"{}", gateway.bearer("alice"))
    async with gateway.http.get("/no/such/place") as response:
        assert response.status == 404
    text = await read(gateway)
    posted = f'taprail_http_requests_total{{method="POST",path="{PATH}",status='
    for line in (
        f'{posted}"200"}} 1.0',
        f'{posted}"400"}} 1.0',
        'taprail_http_requests_total{method="GET",path="none",status="404"} 1.0',
        'taprail_http_seconds_count{path="/api/payment/process-async"} 2.0',
        'taprail_queue{queue="payment",what="waiting"} 1.0',
        'taprail_payments{state="pending"} 1.0',
        'taprail_cache_lookups{cache="terminals",found="no"} 1.0',
        "taprail_ready 1.0",
    ):
        assert f"{line}\n" in text, line
    names = (card.issued.card_uuid, card.issued.account, TERMINAL, "alice")
    for secret in (*names, accepted.json["transactionId"]):
        assert secret not in text


async def test_labels_do_not_grow_with_what_strangers_send(gateway: TestGateway) -> None:
    for number in range(20):
        method = ("PURGE", "LOCK", "TRACE", "PROPFIND")[number % 4]
        async with gateway.http.request(method, f"/api/users/u{number}"):
            pass
        async with gateway.http.get(f"/x{number}", headers=gateway.bearer("alice")):
            pass
        async with gateway.http.get(f"/api/users/u{number}", headers=gateway.bearer("alice")):
            pass
    labels = re.findall(r"taprail_http_requests_total\{(.*)\}", await read(gateway))
    assert len(labels) == 3, labels


@pytest.mark.parametrize(
    ("shown", "headers", "may"),
    [
        (Shown.LOOPBACK, {}, True),
        (Shown.LOOPBACK, {"X-Forwarded-For": "8.8.8.8"}, False),
        (Shown.LOOPBACK, {"Forwarded": "for=8.8.8.8"}, False),
        (Shown.ALL, {"X-Forwarded-For": "8.8.8.8"}, True),
        (Shown.OFF, {}, False),
    ],
)
def test_who_may_read_them(shown: Shown, headers: dict[str, str], may: bool) -> None:
    request = make_mocked_request("GET", "/metrics", headers=headers)
    here, elsewhere = request.clone(remote="127.0.0.1"), request.clone(remote="192.0.2.7")
    assert Metrics(shown, ()).may_see(here) is may
    assert Metrics(shown, ()).may_see(elsewhere) is (shown is Shown.ALL)
    assert Metrics(shown, ()).may_see(request.clone(remote="")) is (shown is Shown.ALL)
