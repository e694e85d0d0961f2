"""`taprail admin verdict-key`: the key that terminals know the gateway by."""

from __future__ import annotations

from typing import Final

import typer

from taprail_common.signing import fingerprint, load_key_file
from taprail_gateway import verdict_keys
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, session_of

keys: Final = typer.Typer(help="The key that signs verdicts.", no_args_is_help=True)


@keys.callback()
def group() -> None:
    """The key that signs verdicts."""


@keys.command("rotate")
def rotate(context: typer.Context, as_json: Json = False) -> None:
    """Go over to a new key: the old one names it, and each terminal follows by itself.

    Then restart every gateway of this ledger, each with the new file. Run it again if it was cut
    off. This is no help after a theft: then pair the terminals anew.
    """
    session = session_of(context)
    path, by = session.settings.key_file, session.by()
    old, new = load_key_file(path, "gateway key"), verdict_keys.next_key(path)
    session.write(lambda connection: verdict_keys.name_successor(connection, old, new, by))
    verdict_keys.change_places(path)
    shown = fingerprint(new.verify_key)
    sentence = f"the key is {shown} from the next start on; restart the gateway"
    data = {"former": fingerprint(old.verify_key), "current": shown}
    output.done(data, sentence, as_json=as_json)
