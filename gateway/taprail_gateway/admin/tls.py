"""`taprail admin tls`: the certificate that terminals know the gateway's port by."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json
from taprail_gateway.tls import make_certificate

tls: Final = typer.Typer(help="The certificate of the gateway's port.", no_args_is_help=True)


@tls.callback()
def group() -> None:
    """The certificate of the gateway's port."""


@tls.command("make")
def make(
    certificate: Annotated[Path, typer.Argument(help="The new certificate's file.")],
    key: Annotated[Path, typer.Argument(help="Its private key's file.")],
    host: Annotated[str, typer.Option(help="The name in it; terminals do not look at it.")] = (
        "taprail-gateway"
    ),
    as_json: Json = False,
) -> None:
    """Make a certificate. Name both files in [gateway] as tls_certificate_file and tls_key_file.

    To change it, make another one, name it as tls_next_certificate_file, restart, and let the two
    change places once the terminals have been there.
    """
    pin = make_certificate(certificate, key, host, datetime.now(UTC))
    data = {"certificate": str(certificate), "key": str(key), "pin": pin}
    output.done(data, f"certificate {pin[:16]}… in {certificate}", as_json=as_json)
