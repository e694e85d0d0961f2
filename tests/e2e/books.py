"""Three sets of books, read from outside while everything runs: the chain's, the gateway's and the
terminal's; and the judge who holds them against each other.

The chain is asked for its own logs, both databases are opened read-only as plain SQLite: nothing of
the product has a say in what is found there.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taprail_common.clock import SystemClock
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.invariants import check_invariants
from taprail_gateway.ledger.queries import totals_by_merchant
from taprail_hwsim.block_watch import BlockWatch
from taprail_hwsim.stack import Stack
from taprail_hwsim.transfers import Transfer
from taprail_hwsim.world import MERCHANT_ACCOUNT, MERCHANT_ID, TERMINAL_ID

FINISH_TIMEOUT_S = 60.0
_MINTED_FROM = "0x" + "00" * 20
_OPEN = {"pending", "processing", "sent"}
_UNTOLD = {"stored", "approved"}


@dataclass(frozen=True)
class Payment:
    """A row of the gateway's ledger. `tx_hashes` are those of all bytes ever signed for it."""

    id: str
    requester: str
    request_id: str
    payer: str
    amount_units: int
    state: str
    tx_hashes: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """A row of the terminal's outbox."""

    request_id: str
    amount_units: int
    state: str
    body: bytes
    verdict: bytes | None
    verdict_signature: str | None


def payments(stack: Stack) -> dict[str, Payment]:
    """The gateway's payments by request id, in the order of their acceptance."""
    rows = _rows(
        _ledger_file(stack),
        "SELECT id, requester, request_id, payer, amount_units, state, "
        " (SELECT group_concat(tx_hash) FROM attempts JOIN bindings USING (chain_transaction_id)"
        "  WHERE payment_id = payments.id)"
        " FROM payments ORDER BY created_at_ms",
    )
    return {row[2]: _payment(row) for row in rows}


def requests(stack: Stack) -> dict[str, Request]:
    """The terminal's requests by their ids, in the order of the taps."""
    rows = _rows(
        stack.state_dir / "terminal" / "outbox.db",
        "SELECT request_id, amount_units, state, body, verdict, verdict_signature"
        " FROM requests ORDER BY number",
    )
    return {row[0]: Request(*row) for row in rows}


def newest_request(stack: Stack) -> Request:
    """What the terminal has stored last."""
    return list(requests(stack).values())[-1]


def stored_request_body(stack: Stack, request_id: str) -> bytes:
    """The bytes under which the gateway keeps its verdict on a request; there must be one."""
    ((body,),) = _rows(
        _ledger_file(stack),
        "SELECT request_body FROM verdicts WHERE requester = ? AND request_id = ?",
        TERMINAL_ID,
        request_id,
    )
    return bytes(body)


def charged_units(stack: Stack, card: str) -> list[int]:
    """Everything that has ever left a card's account, by the chain's own logs."""
    account = stack.world.card(card).account
    return [moved.amount_units for moved in _moves(stack) if moved.sender == account]


async def all_told(stack: Stack, blocks: BlockWatch) -> None:
    """Wait until no payment is on its way and the terminal knows how each of its requests ended."""
    async with asyncio.timeout(FINISH_TIMEOUT_S):
        while not _is_all_told(stack):
            await blocks.next_block()


def judge(stack: Stack) -> None:
    """Hold the three books against each other, to the unit. Nothing may be on its way."""
    moves = list(_moves(stack))
    book = payments(stack).values()
    completed = [payment for payment in book if payment.state == "completed"]
    # The chain: each payment once, nothing else, nobody else.
    assert Counter(move.nonce for move in moves) == Counter(payment.id for payment in completed)
    assert {(move.nonce, move.sender, move.amount_units) for move in moves} == {
        (payment.id, payment.payer, payment.amount_units) for payment in completed
    }
    assert {move.recipient for move in moves} <= {MERCHANT_ACCOUNT}
    # The ledger: nothing stuck, and its own rules kept.
    assert [payment for payment in book if payment.state in _OPEN | {"confirmation_failed"}] == []
    totals, problems = _sums(stack)
    assert problems == []
    assert totals[MERCHANT_ID] == sum(move.amount_units for move in moves)
    # The terminal: it knows of each of its own that it is settled, and of no other.
    told = requests(stack).values()
    assert {request.state for request in told} <= {"settled", "declined"}
    assert {(row.request_id, row.amount_units) for row in told if row.state == "settled"} == {
        (payment.request_id, payment.amount_units)
        for payment in completed
        if payment.requester == TERMINAL_ID
    }


def _payment(row: Any) -> Payment:
    id_, requester, request_id, payer, amount_units, state, tx_hashes = row
    hashes = tuple(tx_hashes.split(",")) if tx_hashes else ()
    return Payment(id_, requester, request_id, payer, amount_units, state, hashes)


def _is_all_told(stack: Stack) -> bool:
    under_way = any(payment.state in _OPEN for payment in payments(stack).values())
    return not under_way and all(row.state not in _UNTOLD for row in requests(stack).values())


def _moves(stack: Stack) -> Iterator[Transfer]:
    return (move for move in stack.chain.transfers() if move.sender != _MINTED_FROM)


def _sums(stack: Stack) -> tuple[dict[str, int], list[str]]:
    url = GatewaySettings.load(stack.gateway_config).database_url
    ledger = Ledger.open(url, clock=SystemClock())
    try:
        return ledger.read_now(totals_by_merchant), ledger.read_now(check_invariants)
    finally:
        ledger.dispose()


def _ledger_file(stack: Stack) -> Path:
    return stack.state_dir / "gateway" / "ledger.db"


def _rows(file: Path, query: str, *values: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return database.execute(query, values).fetchall()
