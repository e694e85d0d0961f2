"""Decides about requests of a ledger in a process of its own: a line in, a line out.

In: `["pay", body, signature]` of a terminal, or `["status", card, status]`. Out: the reason's code,
or `approved`; or `done`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

from nacl.signing import SigningKey

from taprail_common.clock import SystemClock
from taprail_gateway import issuer, registry
from taprail_gateway.accept import Acceptor, Answer
from taprail_gateway.api.payments import terminal_item
from taprail_gateway.authorize import Rules
from taprail_gateway.custody import Custody
from taprail_gateway.estimate import SettlementEstimate
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.proofs import ProofReader
from tests.support.gateway_fixtures import TERMINAL, TOKEN_DOMAIN


async def serve(ledger_url: str, key_file: str) -> None:
    """Answer until the input ends."""
    clock, custody = SystemClock(), Custody.load(Path(key_file))
    ledger = Ledger.open(ledger_url, clock=clock)
    ledger.write_now(custody.attach)
    keys = ledger.read_now(lambda c: issuer.load(c, custody))
    proofs = ProofReader(keys, custody.uid_digest, TOKEN_DOMAIN.separator)
    estimate = SettlementEstimate(least_ms=2_000, most_ms=5_000)
    acceptor = Acceptor(SigningKey.generate(), Rules("TUSD", 6), clock, estimate)
    await ledger.start()
    while line := await asyncio.to_thread(sys.stdin.readline):
        what, first, second = json.loads(line)
        if what == "status":
            ledger.write_now(partial(registry.set_card_status, card_uuid=first, status=second))
        else:
            item = terminal_item(proofs, TERMINAL, first.encode(), second, clock.monotonic_s())
            answer = await ledger.write_batched(acceptor, item)
            assert isinstance(answer, Answer)
            what = json.loads(answer.body).get("reasonCode", "approved")
        sys.stdout.write("done\n" if what == "status" else f"{what}\n")
        sys.stdout.flush()
    await ledger.close()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
