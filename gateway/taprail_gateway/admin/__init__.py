"""`taprail admin`: manages a gateway's users, merchants, terminals, cards and ledger.

Works on the ledger itself, while a gateway runs or not; what is changed takes effect at the next
tap.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from taprail_gateway.admin import (
    alerts,
    audit,
    cards,
    fleet,
    history,
    keys,
    lanes,
    pairing,
    payments,
    people,
    queue,
    refunds,
    rewards,
    settings,
    setup,
    technicians,
    terminal_config,
    terminal_offline,
    tls,
    tokens,
    verdict_keys,
    webhooks,
)
from taprail_gateway.admin.session import Session

app: Final = typer.Typer(
    help="Manage cards, merchants, terminals and users of a gateway.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
setup.register(app)
app.command()(history.history)
people.terminals.add_typer(terminal_offline.policies, name="offline")
people.terminals.add_typer(terminal_config.configs, name="config")
fleet.register(people.terminals)
pairing.register(people.terminals)
technicians.register(people.terminals)
refunds.register(payments.payments, people.merchants)
for name, group in (
    ("user", people.users),
    ("token", tokens.tokens),
    ("merchant", people.merchants),
    ("terminal", people.terminals),
    ("technician", technicians.technicians),
    ("card", cards.cards),
    ("key", keys.keys),
    ("verdict-key", verdict_keys.keys),
    ("tls", tls.tls),
    ("payment", payments.payments),
    ("lane", lanes.lanes),
    ("reward", rewards.rewards),
    ("queue", queue.queue),
    ("settings", settings.settings),
    ("alert", alerts.alerts),
    ("audit", audit.audit),
    ("webhook", webhooks.webhooks),
):
    app.add_typer(group, name=name)


@app.callback(epilog="Environment twins of configuration keys: `taprail gateway run --help`.")
def admin(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="TAPRAIL_CONFIG",
            help="The gateway's configuration, a TOML file.",
        ),
    ] = None,
) -> None:
    """Manage cards, merchants, terminals and users of a gateway."""
    context.obj = Session(config)
