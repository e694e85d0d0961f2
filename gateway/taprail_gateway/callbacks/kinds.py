"""Which callbacks a configuration asks for: noted in the ledger, with a dispatcher for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any

from taprail_common.clock import Clock
from taprail_gateway.callbacks.dispatcher import Dispatcher
from taprail_gateway.callbacks.handlers import CallbackHandler, make_handlers
from taprail_gateway.callbacks.line import Line
from taprail_gateway.callbacks.outside import Outside
from taprail_gateway.callbacks.webhook import DeliveryQueue, DeliverySender
from taprail_gateway.config import GatewaySettings
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import outbox
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.ledger.outbox import Callback, CallbackQueue
from taprail_gateway.wakeups import Wakeups


@asynccontextmanager
async def dispatching(
    settings: GatewaySettings, ledger: Ledger, custody: Custody, clock: Clock, wakeups: Wakeups
) -> AsyncIterator[None]:
    """Hand on within the block what the configuration asks for."""
    async with Outside(settings.webhooks.allowed_hosts) as outside:
        dispatcher = make_dispatcher(settings, ledger, custody, outside, clock, wakeups)
        await dispatcher.start()
        try:
            yield
        finally:
            await dispatcher.stop()


def make_dispatcher(
    settings: GatewaySettings,
    ledger: Ledger,
    custody: Custody,
    outside: Outside,
    clock: Clock,
    wakeups: Wakeups,
) -> Dispatcher:
    """From now on the ledger's steps write what these handlers are to be told.

    Gateways that share a ledger must be configured alike: the last that starts decides for all.
    """
    handlers = make_handlers(_wanted(settings), settings)
    states = {kind: handler.states for kind, handler in handlers.items()}
    ledger.write_now(partial(outbox.enable, wanted=states))
    random = Random()  # noqa: S311 - spreads retries; nobody is to be kept from guessing it
    lines: list[Line[Any]] = [*callback_lines(handlers, ledger, clock, random)]
    if settings.webhooks.enabled:
        sender = DeliverySender(ledger, custody, outside, clock)
        lines.append(Line(DeliveryQueue(), sender, ledger, clock, random))
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
    kinds = {"reward": settings.rewards.contract is not None, "webhook": settings.webhooks.enabled}
    return [kind for kind, is_wanted in kinds.items() if is_wanted]
