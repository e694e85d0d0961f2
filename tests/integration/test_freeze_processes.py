"""A card that one process has frozen is refused at the very next tap by another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from taprail_common.wire import SIGNATURE_HEADER
from taprail_gateway import registry
from taprail_gateway.ledger.invariants import check_invariants
from tests.support.gateway_fixtures import UNIT, TestCard, TestGateway, running_gateway
from tests.support.ledger_fixtures import on_postgres

ROOT: Final = Path(__file__).parents[2]


class Beside:
    """A process that decides on the same ledger."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, *words: str) -> str:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    def pays(self, gateway: TestGateway, card: TestCard) -> str:
        body = json.dumps(gateway.request(card.tap(), amount=UNIT)).encode()
        signature = gateway.headers(body)[SIGNATURE_HEADER]
        return self.ask("pay", body.decode(), signature)


@contextmanager
def beside(ledger_url: str, folder: Path) -> Iterator[Beside]:
    command = [sys.executable, "-m", "tests.support.accept_child"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, ledger_url, str(folder / "master.key")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    ) as process:
        yield Beside(process)


@on_postgres
async def test_a_frozen_card_is_refused_by_every_process_at_its_next_tap(
    tmp_path: Path, ledger_url: str
) -> None:
    async with running_gateway(tmp_path, ledger_url=ledger_url) as gateway:
        card = gateway.card()

        async def here() -> str:
            reply = await gateway.pay(card, amount=UNIT)
            return str(reply.json.get("reasonCode", "approved"))

        def set_here(status: str) -> None:
            uuid = card.issued.card_uuid
            gateway.ledger.write_now(
                partial(registry.set_card_status, card_uuid=uuid, status=status)
            )

        with beside(ledger_url, tmp_path) as other:
            for frozen_here in (True, False, True, False):
                for status, expected in (("frozen", "card_frozen"), ("active", "approved")):
                    if frozen_here:
                        set_here(status)
                        assert other.pays(gateway, card) == expected
                        assert await here() == expected
                    else:
                        assert other.ask("status", card.issued.card_uuid, status) == "done"
                        assert await here() == expected
                        assert other.pays(gateway, card) == expected
        assert gateway.ledger.read_now(check_invariants) == []
