"""`taprail admin webhook`: where merchants' servers are told of payments."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection

from taprail_common.clock import rfc3339
from taprail_common.errors import OperatorError
from taprail_gateway import registry
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.callbacks import webhook
from taprail_gateway.callbacks.outside import check_url
from taprail_gateway.ledger import actions, schema
from taprail_gateway.ledger import webhooks as ledger_webhooks

webhooks: Final = typer.Typer(
    help="Merchants' servers that are told of payments.", no_args_is_help=True
)

Id = Annotated[str, typer.Argument(help="The webhook's id, whk_…")]


@webhooks.command("add")
def add(
    context: typer.Context,
    merchant: Annotated[str, typer.Argument(help="The merchant's id.")],
    url: Annotated[str, typer.Argument(help="Where to post: https://…")],
    as_json: Json = False,
) -> None:
    """Tell a merchant's server what becomes of payments. The secret is shown this once."""
    session = session_of(context)
    _require_enabled(session)
    check_url("url", url, session.settings.webhooks.allowed_hosts)
    by, endpoint_id, secret = session.by(), ledger_webhooks.new_endpoint_id(), webhook.new_secret()
    wrapped = session.custody.wrap_secret(webhook.secret_name(endpoint_id), secret)

    def work(connection: Connection) -> None:
        registry.require(connection, schema.merchants, "merchant", merchant)
        ledger_webhooks.add_endpoint(connection, endpoint_id, merchant, url, wrapped, by.at_ms)
        actions.note(connection, "webhook-add", endpoint_id, by, after=url)

    session.write(work)
    text = webhook.secret_text(secret)
    data = {"id": endpoint_id, "merchant": merchant, "url": url, "secret": text}
    sentence = f"webhook {endpoint_id}; its secret, which is not shown again: {text}"
    output.done(data, sentence, as_json=as_json)


@webhooks.command("list")
def list_webhooks(context: typer.Context, as_json: Json = False) -> None:
    """List the webhooks."""
    found = session_of(context).read(ledger_webhooks.all_endpoints)
    rows: list[dict[str, Any]] = [
        {
            "id": each.id,
            "merchant": each.merchant_id,
            "url": each.url,
            "since": rfc3339(each.created_at_ms),
        }
        for each in found
    ]
    columns = {"id": "id", "merchant": "merchant", "url": "url", "since": "since"}
    output.listing(rows, as_json=as_json, columns=columns, what="webhook")


@webhooks.command("rotate")
def rotate(context: typer.Context, endpoint_id: Id, as_json: Json = False) -> None:
    """Make a new secret. The old one signs beside it for a day."""
    session = session_of(context)
    by, secret = session.by(), webhook.new_secret()
    wrapped = session.custody.wrap_secret(webhook.secret_name(endpoint_id), secret)
    until_ms = by.at_ms + webhook.OLD_SECRET_MS

    def work(connection: Connection) -> None:
        ledger_webhooks.endpoint(connection, endpoint_id)
        ledger_webhooks.rotate(connection, endpoint_id, wrapped, until_ms)
        actions.note(connection, "webhook-rotate", endpoint_id, by)

    session.write(work)
    text = webhook.secret_text(secret)
    data = {"id": endpoint_id, "secret": text, "oldSecretUntil": rfc3339(until_ms)}
    sentence = f"the new secret, which is not shown again: {text}"
    output.done(data, sentence, as_json=as_json)


@webhooks.command("remove")
def remove(context: typer.Context, endpoint_id: Id, as_json: Json = False) -> None:
    """Tell it nothing any more; what waits for it is given up."""
    session = session_of(context)
    by = session.by()

    def work(connection: Connection) -> None:
        found = ledger_webhooks.endpoint(connection, endpoint_id)
        ledger_webhooks.remove_endpoint(connection, endpoint_id, by.at_ms)
        actions.note(connection, "webhook-remove", endpoint_id, by, before=found.url)

    session.write(work)
    output.done({"id": endpoint_id}, f"webhook {endpoint_id} is removed", as_json=as_json)


@webhooks.command("replay")
def replay(
    context: typer.Context,
    endpoint_id: Id,
    hours: Annotated[int, typer.Option(help="What was written since so long.", min=1)] = 72,
    as_json: Json = False,
) -> None:
    """Send again what was given up, with the same ids."""
    session = session_of(context)
    by = session.by()
    since_ms = by.at_ms - int(timedelta(hours=hours).total_seconds() * 1000)

    def work(connection: Connection) -> int:
        ledger_webhooks.endpoint(connection, endpoint_id)
        again = partial(ledger_webhooks.replay, since_ms=since_ms, at_ms=by.at_ms)
        count = again(connection, endpoint_id)
        actions.note(connection, "webhook-replay", endpoint_id, by, after=count)
        return count

    count = session.write(work)
    data = {"id": endpoint_id, "deliveries": count}
    output.done(data, f"{count} deliveries are sent again", as_json=as_json)


def _require_enabled(session: Session) -> None:
    if not session.settings.webhooks.enabled:
        raise OperatorError(
            "webhooks are switched off", fix="set webhooks.enabled and restart the gateway"
        )
