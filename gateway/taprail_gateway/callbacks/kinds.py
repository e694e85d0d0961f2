"""Which callbacks a configuration asks for: noted in the ledger, with a dispatcher for them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from random import Random

from taprail_common.clock import Clock
from taprail_gateway.callbacks.dispatcher import Dispatcher
from taprail_gateway.callbacks.handlers import CallbackHandler, make_handlers
from taprail_gateway.callbacks.line import Line
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import outbox
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.outbox import Callback, CallbackQueue
from taprail_gateway.wakeups import Wakeups


def make_dispatcher(
    settings: GatewaySettings, ledger: Ledger, clock: Clock, wakeups: Wakeups
) -> Dispatcher:
    """From now on the ledger's steps write what these handlers are to be told.

    Gateways that share a ledger must be configured alike: the last that starts decides for all.
    """
    handlers = make_handlers(_wanted(settings), settings)
    states = {kind: handler.states for kind, handler in handlers.items()}
    ledger.write_now(partial(outbox.enable, wanted=states))
    random = Random()  # noqa: S311 - spreads retries; nobody is to be kept from guessing it
    lines = callback_lines(handlers, ledger, clock, random)
    return Dispatcher(ledger, lines, clock, wakeups, random)


def callback_lines(
    handlers: Mapping[str, CallbackHandler], ledger: Ledger, clock: Clock, random: Random
) -> list[Line[Callback]]:
    """A line for each kind of callback."""
    return [
        Line(CallbackQueue(kind), handler, ledger, clock, random)
        for kind, handler in handlers.items()
    ]


def _wanted(settings: GatewaySettings) -> list[str]:
    return ["reward"] if settings.rewards.contract is not None else []
