"""A charge together with the payment that it came to: what polls, pushes and webhooks tell alike.

What became of the money is read from the payment and kept nowhere else, so the three cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from taprail_gateway.charges import Charge, view
from taprail_gateway.payment_view import load_payment, status_body

Link = Callable[[str | None], str | None]


def no_link(_tx_hash: str | None) -> None:
    """Where nobody can look anything up."""


def charge_body(connection: Connection, charge: Charge, explorer_link: Link) -> dict[str, object]:
    """A charge, and the payment as it is now."""
    found = None if charge.payment_id is None else load_payment(connection, charge.payment_id)
    payment = None if found is None else status_body(found, explorer_link(found.tx_hash))
    return {**view(charge), "payment": payment}
