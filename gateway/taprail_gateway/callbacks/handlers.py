"""Handlers by name: who is told of payments, and how. A module is imported only when it is used.

A handler answers for the rows of one queue. What it does to the outside it does in `handle`, which
may happen more than once for a row: the process may end before the row is finished. What it does to
the ledger it gives back as work, which is done in the commit that finishes the row.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection

from taprail_common.errors import OperatorError
from taprail_common.payment_state import PaymentState
from taprail_gateway.config import GatewaySettings
from taprail_gateway.ledger.outbox import Callback

Work: TypeAlias = Callable[[Connection], object]


R_contra = TypeVar("R_contra", contravariant=True)


class Handler(Protocol[R_contra]):
    """Who handles the rows of a queue."""

    at_once: int
    """How many may be handled at the same time."""

    async def handle(self, row: R_contra, /) -> Work:
        """Tell whoever is to be told, keyed by what the row is about, and give what to write.

        Anything that it raises, or that its work raises, is a failure: the row is tried again.
        """
        ...


class CallbackHandler(Handler[Callback], Protocol):
    """One kind of callback."""

    states: Collection[PaymentState]
    """What it is told of, when a payment comes to it."""


_HANDLERS: Final[Mapping[str, tuple[str, str]]] = {
    "reward": ("taprail_gateway.callbacks.reward", "RewardHandler"),
    "webhook": ("taprail_gateway.callbacks.webhook", "WebhookHandler"),
}
"""Kind -> module and class; the class takes the gateway's settings."""


def make_handlers(kinds: Sequence[str], settings: GatewaySettings) -> dict[str, CallbackHandler]:
    """The handlers of these kinds; OperatorError for one that there is not."""
    return {kind: _make(kind, settings) for kind in kinds}


def _make(kind: str, settings: GatewaySettings) -> CallbackHandler:
    if kind not in _HANDLERS:
        raise OperatorError(
            f"no handler for {kind!r} callbacks", fix=f"there are: {', '.join(_HANDLERS)}"
        )
    module, class_name = _HANDLERS[kind]
    handler: CallbackHandler = getattr(importlib.import_module(module), class_name)(settings)
    return handler
