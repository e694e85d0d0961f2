"""The faults by their names, and how a rule is written: `name[:amount][:key=value][@methods]`."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, Final

from taprail_hwsim.rpc_proxy import answer_faults, pool_faults, wire_faults
from taprail_hwsim.rpc_proxy.decide import Amount, Rule
from taprail_hwsim.rpc_proxy.exchange import Fault

FAULTS: Final[dict[str, type[Fault]]] = {
    "drop_request": wire_faults.DropRequest,
    "drop_reply": wire_faults.DropReply,
    "delay": wire_faults.Delay,
    "duplicate": wire_faults.Duplicate,
    "hang": wire_faults.Hang,
    "http_429": wire_faults.TooManyRequests,
    "http_502": wire_faults.BadGateway,
    "reorder": wire_faults.Reorder,
    "partial_batch": wire_faults.PartialBatch,
    "huge_reply": wire_faults.HugeReply,
    "truncated_json": wire_faults.TruncatedJson,
    "garbage": wire_faults.Garbage,
    "internal_error": answer_faults.InternalError,
    "lagging_head": answer_faults.LaggingHead,
    "null_receipt": answer_faults.NullReceipt,
    "receipt_then_null": answer_faults.ReceiptThenNull,
    "foreign_receipt": answer_faults.ForeignReceipt,
    "flipped_status": answer_faults.FlippedStatus,
    "wrong_block_hash": answer_faults.WrongBlockHash,
    "missing_logs": answer_faults.MissingLogs,
    "wrong_chain_id": answer_faults.WrongChainId,
    "accepted_lost": pool_faults.AcceptedLost,
    "strict_nonce": pool_faults.StrictNonce,
    "bump_rule": pool_faults.BumpRule,
}
_MAX_PARAMETER: Final = 1_000_000
_MAX_COUNT: Final = 1_000_000


class FaultSpecError(ValueError):
    """The text of a rule cannot be read; the message says what would be right."""


def about(name: str) -> str:
    """The sentence about a fault."""
    return inspect.cleandoc(FAULTS[name].__doc__ or "").replace("\n", " ")


def parameters(name: str) -> dict[str, int]:
    """A fault's parameters with their defaults."""
    plain: Any = FAULTS[name]()
    return {item.name: getattr(plain, item.name) for item in dataclasses.fields(plain) if item.init}


def make_rule(
    name: str,
    amount: Amount | None = None,
    *,
    methods: tuple[str, ...] = (),
    **options: int,
) -> Rule:
    """A rule for a fault of the table; raises FaultSpecError."""
    if name not in FAULTS:
        raise FaultSpecError(f"there is no fault {name!r}; there are: {', '.join(FAULTS)}")
    known = parameters(name)
    for key, value in options.items():
        if key not in known:
            raise FaultSpecError(f"{name} has no {key!r}; it has: {', '.join(known) or 'nothing'}")
        if not 0 <= value <= _MAX_PARAMETER:
            raise FaultSpecError(f"{name}: {key} must be from 0 to {_MAX_PARAMETER}")
    return Rule(name, FAULTS[name](**options), amount or Amount(), methods)


def parse_rule(text: str) -> Rule:
    """Read a rule: `hang` always, `drop_reply:0.1` at a rate, `http_502:3` the next three times,
    `delay:0.2:ms=300` with a parameter, `hang:1@eth_call,eth_getLogs` for these methods only.

    Raises FaultSpecError.
    """
    head, _, methods = text.partition("@")
    name, *parts = head.split(":")
    options = dict(_option(text, part) for part in parts if "=" in part)
    amounts = [_amount(text, part) for part in parts if "=" not in part]
    if len(amounts) > 1:
        raise FaultSpecError(f"{text!r}: give one rate or one count")
    named = tuple(method for method in methods.split(",") if method)
    return make_rule(name, amounts[0] if amounts else None, methods=named, **options)


def _amount(text: str, part: str) -> Amount:
    try:
        if part.isdecimal():
            if int(part) > _MAX_COUNT:
                raise ValueError("too many")
            return Amount(count=int(part))
        return Amount(rate=float(part))
    except ValueError:
        raise FaultSpecError(
            f"{text!r}: {part!r} is neither a rate from 0.0 to 1.0 nor a count up to {_MAX_COUNT}"
        ) from None


def _option(text: str, part: str) -> tuple[str, int]:
    key, _, value = part.partition("=")
    if not value.isdecimal():
        raise FaultSpecError(f"{text!r}: {key} must be a whole number")
    return key, int(value)
