"""The OpenAPI document and the running gateway say the same, whatever is asked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from taprail_common.pairing import PAIR_PATH
from taprail_gateway.api.routes import ROUTES
from tests.support.gateway_fixtures import TestGateway, running_gateway

SEED = 20_260_801
EXAMPLES = 5
"""Of each address and phase: enough for the models' corners, which the coverage phase adds."""

WITHIN_S = 90
"""A run takes about ten seconds; this is for a machine that does other things as well."""

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as running:
        await running.pay(running.card())
        yield running


async def document(gateway: TestGateway) -> Any:
    async with gateway.http.get("/openapi.json") as response:
        assert response.status == 200
        return await response.json()


async def test_the_document_has_every_address_of_the_application(gateway: TestGateway) -> None:
    told = await document(gateway)
    listed = {(method.upper(), path) for path, each in told["paths"].items() for method in each}
    assert listed == {(route.method, route.path) for route in ROUTES}
    charged = told["paths"]["/api/terminals/{id}/charges"]["post"]
    assert {"200", "201"} <= charged["responses"].keys(), "asked for before, and new"
    for path, operations in told["paths"].items():
        for operation in operations.values():
            if path.startswith("/api/") and path != PAIR_PATH:
                assert operation["security"], path
                assert {"401", "429", "500", "503"} <= operation["responses"].keys()


async def asked_by_schemathesis(gateway: TestGateway, user: str, phases: str, folder: Path) -> str:
    """What is wrong, in its words; empty when nothing is."""
    program = Path(sys.executable).with_name("schemathesis")
    process = await asyncio.create_subprocess_exec(
        str(program),
        *("run", f"{gateway.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {gateway.token(user)}"),
        *("--checks", ",".join(CHECKS), "--phases", phases, "--seed", str(SEED)),
        *("--max-examples", str(EXAMPLES), "--no-shrink", "--warnings", "off", "--no-color"),
        *("--generation-database", "none", "--continue-on-failure"),
        *("--suppress-health-check", "all"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return "" if process.returncode == 0 else told.decode()


@pytest.mark.timeout(WITHIN_S + 30)
@pytest.mark.parametrize(("user", "phases"), [("olga", "coverage,fuzzing"), ("alice", "fuzzing")])
async def test_no_request_has_an_answer_that_is_not_in_the_document(
    gateway: TestGateway, user: str, phases: str, tmp_path: Path
) -> None:
    assert await asked_by_schemathesis(gateway, user, phases, tmp_path) == ""
