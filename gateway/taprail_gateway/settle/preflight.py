"""Whether payments would go through, asked before it costs gas: the whole batch in one `eth_call`.

What is asked is what will be sent, but for the time: these authorizations end some seconds after
the head block, because a node that is asked can also carry them out. Whoever calls this has noted
that they were signed (`claims.will_sign`), so that the proof rule counts them.

It decides nothing about a payment: a refusal today may be over tomorrow. A node that cannot answer
is an error, and then nothing is sent either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from taprail_gateway.settle import calls, code_sizes, replies
from taprail_gateway.settle.calls import CallResult
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.errors import (
    CallClass,
    ChainError,
    TokenPausedError,
    call_failed,
    refusal,
)
from taprail_gateway.settle.gas import GasTable
from taprail_gateway.settle.node import Call
from taprail_gateway.settle.replies import Block

VALIDITY_S: Final = 5
"""After the head block, in which the trial runs: seen on geth and anvil, whose `eth_call` at a
block takes that block's time. The bound is strict, and a next block may be but a second away."""

_TRIALS_PER_CALL: Final = 100
"""Some 6 M gas in one call, where nodes allow 30 M and more; 36 kB of call data."""

_log = structlog.get_logger("settle.preflight")


@dataclass(frozen=True, slots=True)
class Trial:
    """One payment as the token would be asked to carry it out."""

    payment_id: str
    payer: str
    payee: str
    data: bytes


@dataclass
class Findings:
    """What came out for a batch."""

    refused: dict[str, str] = field(default_factory=dict)
    """Payment id → why it would fail, in words for people."""
    with_code: frozenset[str] = frozenset()
    """Payers that are contracts, or delegate to one (EIP-7702)."""

    def note(self, trial: Trial, text: str) -> None:
        """One trial failed, with such a reason; raises TokenPausedError when all would."""
        meant = refusal(text)
        if meant.meaning is CallClass.TOKEN_PAUSED:
            raise TokenPausedError(meant.words, fix="wait until its issuer lets it go on")
        if meant.meaning is CallClass.REFUSED:
            self.refused[trial.payment_id] = meant.words


async def try_out(chain: Chain, gas: GasTable, trials: Sequence[Trial], head: Block) -> Findings:
    """What would become of these at the head block. Raises ChainError or TokenPausedError."""
    findings = Findings()
    for start in range(0, len(trials), _TRIALS_PER_CALL):
        await _try_part(chain, gas, trials[start : start + _TRIALS_PER_CALL], head, findings)
    return findings


async def _try_part(
    chain: Chain, gas: GasTable, trials: Sequence[Trial], head: Block, findings: Findings
) -> None:
    payers = sorted({trial.payer for trial in trials})
    sizes = code_sizes.question(payers, hex(head.number))
    results: list[CallResult] | None = None
    try:
        together = _together(chain, gas, trials, head)
        size_words, reply = await chain.read([sizes, together], replies.data_bytes)
        results = calls.decode_results(reply, len(trials))
    except ChainError as exc:
        # Perhaps a payer with code spoils the call for all.
        _log.warning("settle.preflight_apart", payments=len(trials), reason=str(exc))
        (size_words,) = await chain.read([sizes], replies.data_bytes)
    coded = code_sizes.with_code(payers, size_words)
    if coded:
        findings.with_code |= coded
        await _try_each(chain, gas, [it for it in trials if it.payer in coded], head, findings)
        plain = [it for it in trials if it.payer not in coded]
        if plain:
            await _try_part(chain, gas, plain, head, findings)
    elif results is None and len(trials) == 1:
        await _try_each(chain, gas, trials, head, findings)
    elif results is None:
        # Perhaps it is more than this node answers at once.
        half = len(trials) // 2
        await _try_part(chain, gas, trials[:half], head, findings)
        await _try_part(chain, gas, trials[half:], head, findings)
    else:
        for trial, result in zip(trials, results, strict=True):
            if not result.succeeded:
                findings.note(trial, calls.revert_reason(result.data))


async def _try_each(
    chain: Chain, gas: GasTable, trials: Sequence[Trial], head: Block, findings: Findings
) -> None:
    """Each by itself: slow and safe, for payers who may do as they like."""
    for trial in trials:
        try:
            await chain.read([_alone(chain, gas, trial, head)], replies.data_bytes)
        except ChainError as exc:
            if not call_failed(exc.reply):
                raise
            findings.note(trial, exc.reply.text.partition(":")[2].strip())


def _together(chain: Chain, gas: GasTable, trials: Sequence[Trial], head: Block) -> Call:
    data = calls.aggregate3([(chain.token.address, trial.data) for trial in trials])
    limit = gas.batch + gas.limit([trial.payee for trial in trials])
    return _call(chain.multicall, data, limit, head)


def _alone(chain: Chain, gas: GasTable, trial: Trial, head: Block) -> Call:
    return _call(chain.token.address, trial.data, gas.limit([trial.payee]), head)


def _call(to: str, data: bytes, gas_limit: int, head: Block) -> Call:
    asked: dict[str, Any] = {"to": to, "data": "0x" + data.hex(), "gas": hex(gas_limit)}
    return ("eth_call", [asked, hex(head.number)])
