"""`taprail admin terminal pair`: a one-use code, and whose key came with it."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection

from taprail_common.clock import rfc3339
from taprail_common.errors import OperatorError
from taprail_common.pairing import Code
from taprail_common.signing import fingerprint, load_key_file, parse_public_key
from taprail_gateway import pairing
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.pairing import Wanted

_LOOK_EVERY_S: Final = 0.5


def register(terminals: typer.Typer) -> None:
    """Add the commands to the group."""
    terminals.command("pair")(pair)


def pair(
    context: typer.Context,
    terminal_id: Annotated[str, typer.Argument(help="An id of your choice.")],
    merchant: Annotated[
        str | None, typer.Option(help="Whose terminal it is; as before when it is paired anew.")
    ] = None,
    name: Annotated[str, typer.Option(help="Where it stands; the id when left out.")] = "",
    minutes: Annotated[
        int, typer.Option(min=1, max=pairing.MAX_MINUTES, help="How long the code is good.")
    ] = pairing.MAX_MINUTES,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it was typed; show whose key came.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a one-use code. Type it at the device: `taprail terminal pair CODE`, or on its console.

    Then compare both fingerprints with those that the device shows. A terminal that is there
    already belongs to the new device from then on, and the old one's key is good no more.
    """
    session = session_of(context)
    code, by = Code.new(), session.by()
    proof_key, wanted = code.key(), Wanted(terminal_id, merchant, name, minutes)

    def work(connection: Connection) -> int:
        return pairing.offer(connection, code, proof_key, wanted, by)

    expires_at_ms = session.write(work)
    key = load_key_file(session.settings.key_file, "gateway key").verify_key
    data: dict[str, Any] = {
        "id": terminal_id,
        "code": code.text,
        "expiresAt": rfc3339(expires_at_ms),
        "gatewayFingerprint": fingerprint(key),
    }
    if wait:
        data["fingerprint"] = _typed(session, code, expires_at_ms, shown=not as_json)
    labels = {"id": "terminal", "code": "code", "expiresAt": "good until"}
    labels |= {"gatewayFingerprint": "gateway's key", "fingerprint": "terminal's key"}
    output.record(data, as_json=as_json, labels=labels)


def _typed(session: Session, code: Code, expires_at_ms: int, *, shown: bool) -> str:
    """The fingerprint of the device that knows the code; raises OperatorError when none came."""
    if shown:
        output.console().print(f"type at the device: [bold]{code.text}[/]")
    while session.clock.now_ms() < expires_at_ms:
        key = session.read(partial(pairing.used_by, name=code.name))
        if key is not None:
            return fingerprint(parse_public_key(key))
        time.sleep(_LOOK_EVERY_S)
    raise OperatorError("nobody has typed the code", fix="have a new one made")
