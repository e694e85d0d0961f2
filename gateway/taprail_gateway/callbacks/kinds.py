"""Which callbacks a configuration asks for: noted in the ledger, with a dispatcher for them."""

from __future__ import annotations

from functools import partial
from random import Random

from taprail_common.clock import Clock
from taprail_gateway.callbacks.dispatcher import Dispatcher
from taprail_gateway.callbacks.handlers import make_handlers
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger import outbox
from taprail_gateway.ledger.database import Ledger
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
    # Spreads retries; nobody is to be kept from guessing it.
    return Dispatcher(ledger, handlers, clock, wakeups, Random())  # noqa: S311


def _wanted(settings: GatewaySettings) -> list[str]:
    return ["reward"] if settings.rewards.contract is not None else []
