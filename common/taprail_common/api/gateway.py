"""What a gateway says of itself: to a terminal, and to whoever watches over it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from taprail_common.api.base import Time, Told
from taprail_common.succession import MAX_SUCCESSIONS
from taprail_common.wire import SignedEnvelope, SigningTerms, Word


class Hello(Told):
    """Who a terminal is here, and the terms that cards sign under."""

    gateway_id: str
    gateway_time: Time
    terminal_id: str
    status: Literal["active", "frozen", "revoked"]
    merchant_id: str
    merchant_name: str
    currency: str
    decimals: int
    signing: SigningTerms | None = None
    """None from a gateway that takes no cards that sign."""
    pin_above_units: int | None = None
    offline_revision: str | None = None
    """Of the policy for taps without the gateway; None where there is none."""
    technicians_revision: str | None = None
    """Of the list of technicians; a terminal that has another one asks for it."""
    successions: Annotated[tuple[SignedEnvelope, ...], Field(max_length=MAX_SUCCESSIONS)] = ()
    """By which keys this gateway's were followed, each said by the one before."""
    tls_pins: Annotated[tuple[Word, ...], Field(max_length=2)] = ()
    """SHA-256 of the certificates that it shows itself, now and next."""


class Alive(Told):
    """It lives."""

    status: Literal["ok"]


class Ready(Told):
    """It can do its work."""

    status: Literal["ready"]


class NotReady(Told):
    """What is in the way."""

    status: Literal["not ready"]
    problems: list[str]
