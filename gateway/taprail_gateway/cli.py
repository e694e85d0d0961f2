"""`taprail gateway`: run the gateway."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer
import uvloop

from taprail_common.logs import configure_logs
from taprail_common.service import SERVICE_MANAGER
from taprail_gateway.app import Ready, serve
from taprail_gateway.config import GatewaySettings

app: Final = typer.Typer(
    help="Run the gateway.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

CONFIG_HELP: Final = "The configuration, a TOML file."
_EPILOG: Final = (
    "Every key of the file has an environment twin: TAPRAIL_SET_GATEWAY__PORT=8080 sets port in"
    " \\[gateway]. Flags win over the environment, the environment over the file."
)


@app.callback()
def gateway() -> None:
    """Run the gateway."""


@app.command(epilog=_EPILOG)
def run(
    config: Annotated[Path, typer.Option(envvar="TAPRAIL_CONFIG", help=CONFIG_HELP)],
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on. \\[env: TAPRAIL_SET_GATEWAY__HOST]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port; 0 takes a free one. \\[env: TAPRAIL_SET_GATEWAY__PORT]"),
    ] = None,
) -> None:
    """Serve until SIGTERM. When ready, one line of JSON on stdout says where: url, host, port,
    gatewayId, publicKey. Logs go to stderr."""
    settings = GatewaySettings.load(config, flags={"gateway.host": host, "gateway.port": port})
    configure_logs(json=settings.log.json_lines, level=settings.log.level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, _say_ready))


def _say_ready(ready: Ready) -> None:
    structlog.get_logger("gateway").info("gateway.ready", url=ready.url, gateway=ready.gateway_id)
    names = {"gateway_id": "gatewayId", "public_key": "publicKey"}
    line = {names.get(name, name): value for name, value in asdict(ready).items()}
    sys.stdout.write(json.dumps({"event": "ready", **line}) + "\n")
    sys.stdout.flush()
    SERVICE_MANAGER.ready()
