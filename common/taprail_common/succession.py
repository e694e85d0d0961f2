"""By which key a gateway's key is followed: said by the old key, so that terminals can walk along.

A terminal that trusts a key trusts the one that it names as its successor, and so on: one that was
off during several changes finds its way to the key of today. Whoever stole a key could name a
successor too; after a theft the terminals are paired anew instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nacl.signing import SigningKey, VerifyKey
from pydantic import ValidationError

from taprail_common.api.base import Request
from taprail_common.errors import SignatureError
from taprail_common.pairing import PublicKey
from taprail_common.signing import Domain, parse_public_key, public_key_text, sign, verify
from taprail_common.wire import SignedEnvelope

MAX_SUCCESSIONS: Final = 8
"""So many a hello tells of: changes that a terminal may have slept through."""


class Succession(Request):
    """The old key says by which it is followed."""

    old_key: PublicKey
    new_key: PublicKey


def succession(old: SigningKey, new: VerifyKey) -> SignedEnvelope:
    """The old key's word for the new one."""
    said = Succession(old_key=public_key_text(old.verify_key), new_key=public_key_text(new))
    body = said.model_dump_json(by_alias=True).encode()
    return SignedEnvelope(body=body.decode(), signature=sign(old, Domain.SUCCESSION, body))


def successor(trusted: VerifyKey, told: Iterable[SignedEnvelope]) -> VerifyKey:
    """Where the chain from a trusted key leads; that key itself when nothing leads on."""
    steps = {}
    for envelope in told:
        try:
            said = Succession.model_validate_json(envelope.body)
            old = parse_public_key(said.old_key)
            verify(old, Domain.SUCCESSION, envelope.body.encode(), envelope.signature)
        except (SignatureError, ValidationError):
            continue
        steps[said.old_key] = said.new_key
    at = public_key_text(trusted)
    while at in steps:  # each step is taken out, so that a circle ends
        at = steps.pop(at)
    return parse_public_key(at)
