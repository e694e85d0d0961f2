"""Pairs this device with a gateway by a one-use code, and keeps what came of it.

The device's key is made here and never leaves. What the gateway answers is believed when its MAC
shows that it knows the code (see `taprail_common.pairing`), and kept (`paired`). A pairing that was
interrupted anywhere leaves the terminal as it was, and the same code can be typed again.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from taprail_common.client.exchange import Bounds, Exchange, Reply
from taprail_common.client.pins import PinnedCertificates
from taprail_common.errors import LinkError, OperatorError, PartError, SignatureError
from taprail_common.pairing import (
    PAIR_PATH,
    PROOF_HEADER,
    Code,
    PairAnswer,
    PairRequest,
    answer_proof,
    is_same,
    request_proof,
)
from taprail_common.signing import fingerprint, gateway_id, parse_public_key
from taprail_common.wire import MAX_BODY_BYTES, parse
from taprail_terminal.identity import Identity
from taprail_terminal.paired import Place, keep
from taprail_terminal.tls_known import forget_heard

_BOUNDS: Final = Bounds(attempt_s=10.0, connect_s=5.0, connections=1, answer_bytes=MAX_BODY_BYTES)
_ANOTHER_CODE: Final = "have a new one made: taprail admin terminal pair"


async def pair(place: Place, typed: str) -> PairAnswer:
    """Pair with the gateway. Raises InputError for what is no code, LinkError when the gateway is
    out of reach, SignatureError when it does not know the code, OperatorError when it refuses."""
    code = Code.parse(typed)
    key = await asyncio.to_thread(code.key)
    identity = await asyncio.to_thread(_identity, place.key_file)
    asked = PairRequest(
        code=code.name,
        public_key=identity.public_key,
        nonce=secrets.token_hex(16),
        version=metadata.version("taprail")[:80],
    )
    asked = asked.model_copy(update={"proof": request_proof(key, asked)})
    body = asked.model_dump_json(by_alias=True, exclude_none=True).encode()
    learning = PinnedCertificates((), learns=True)
    async with Exchange(place.gateway_url, _BOUNDS, learning) as exchange:
        headers = {"Content-Type": "application/json"}
        reply = await exchange.send("POST", PAIR_PATH, body=body, headers=headers)
    answer = _believed(key, asked, reply)
    _check_certificate(place.gateway_url, answer, learning.seen)
    await asyncio.to_thread(_keep, place.state_dir, answer)
    return answer


def _keep(state_dir: Path, answer: PairAnswer) -> None:
    """Those of an earlier pairing go first: cut off here, what it gave holds on."""
    try:
        forget_heard(state_dir)
    except OSError as exc:
        raise PartError("disk", f"{state_dir} cannot be written ({exc.strerror})") from exc
    keep(state_dir, answer)


def paired_facts(answer: PairAnswer) -> dict[str, str]:
    """What two people compare."""
    return {
        "terminalId": answer.terminal_id,
        "merchantId": answer.merchant_id,
        "fingerprint": answer.fingerprint,
        "gatewayFingerprint": answer.gateway_fingerprint,
    }


def _identity(key_file: Path) -> Identity:
    """The device's key, made now unless it has one; its name is yet to be told."""
    if key_file.exists():
        return Identity.load("unpaired", key_file)
    return Identity.create("unpaired", key_file)


def _believed(key: bytes, asked: PairRequest, reply: Reply) -> PairAnswer:
    if reply.status != 200:
        raise OperatorError(f"the gateway refuses: {_reason(reply)}", fix=_ANOTHER_CODE)
    if not is_same(answer_proof(key, asked, reply.body), reply.headers.get(PROOF_HEADER, "")):
        raise SignatureError(
            "whoever answered does not know the code",
            fix="check the gateway's address, and who is between; then have a new code made",
        )
    answer = parse(PairAnswer, reply.body)
    gateway_key = parse_public_key(answer.gateway_public_key)
    said = (answer.gateway_id, answer.gateway_fingerprint)
    if said != (gateway_id(gateway_key), fingerprint(gateway_key)):
        raise LinkError("the gateway's answer contradicts itself")
    return answer


def _check_certificate(url: str, answer: PairAnswer, shown: str | None) -> None:
    """What the gateway says of its certificates was part of what the code has proved. Where it has
    none of its own, a proxy speaks TLS, which is checked from the first greeting on."""
    if not answer.tls_pins or shown in answer.tls_pins:
        return
    raise LinkError(
        f"{url} does not show the gateway's certificate",
        fix="use the gateway's https address, and find out who is between",
    )


def _reason(reply: Reply) -> str:
    try:
        told: Any = json.loads(reply.body)
    except ValueError:
        told = None
    reason = told.get("error") if isinstance(told, dict) else None
    text = reason if isinstance(reason, str) and reason.isprintable() else "without a reason"
    return f"{text[:200]} ({reply.status})"
