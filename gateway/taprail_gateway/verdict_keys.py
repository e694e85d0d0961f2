"""The gateway's own key and those that it has followed: on disk, and in the ledger for terminals.

The key in use lies in its file, `<file>.next` is one that is about to take its place, and
`<file>.former` holds those of before, the newest first: what was sealed to them still opens, and
what they signed is still known as ours. A change that was cut off anywhere is done again without
harm: first the next key is made, then the old one names it in the ledger, then the files change
places.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nacl.signing import SigningKey
from sqlalchemy import Connection, delete, insert, select

from taprail_common.errors import OperatorError
from taprail_common.secret_files import read_secret_file
from taprail_common.signing import (
    create_key_file,
    fingerprint,
    load_key_file,
    parse_public_key,
    public_key_text,
    sync_folder,
    write_secret_file,
)
from taprail_common.succession import MAX_SUCCESSIONS, succession
from taprail_common.wire import SignedEnvelope
from taprail_gateway.ledger import actions
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.schema_pairing import gateway_successions

MAX_FORMER: Final = 40
"""Keys that are kept: what a secret's file may hold."""

_s = gateway_successions.c


def former_keys(key_file: Path) -> tuple[SigningKey, ...]:
    """The keys of before, the newest first. Raises OperatorError for a file that cannot be used."""
    path = _beside(key_file, "former")
    if not path.exists():
        return ()
    try:
        lines = read_secret_file(path, "former gateway keys").split()
        return tuple(SigningKey(bytes.fromhex(line)) for line in lines)
    except ValueError:
        raise OperatorError(f"{path} is damaged", fix="restore it from its backup") from None


def next_key(key_file: Path) -> SigningKey:
    """The key that is about to come; made now unless a change was cut off."""
    path = _beside(key_file, "next")
    return load_key_file(path, "next gateway key") if path.exists() else create_key_file(path)


def name_successor(connection: Connection, old: SigningKey, new: SigningKey, by: By) -> None:
    """Put the old key's word for the new one into the ledger; does nothing the second time."""
    old_text, new_text = (public_key_text(each.verify_key) for each in (old, new))
    if connection.scalar(select(_s.new_key).where(_s.old_key == old_text)) == new_text:
        return
    # Another one may have been named, whose file was lost before it took its place.
    connection.execute(delete(gateway_successions).where(_s.old_key == old_text))
    envelope = succession(old, new.verify_key)
    connection.execute(
        insert(gateway_successions).values(
            old_key=old_text, new_key=new_text, signature=envelope.signature, at_ms=by.at_ms
        )
    )
    shown = [fingerprint(each.verify_key) for each in (old, new)]
    actions.note(
        connection, "change-verdict-key", "gateway key", by, before=shown[0], after=shown[1]
    )


def change_places(key_file: Path) -> None:
    """Put the next key in the place of the one in use, which is kept among the former."""
    former, new = _beside(key_file, "former"), _beside(key_file, "next")
    old = load_key_file(key_file, "gateway key")
    keys = [old, *(each for each in former_keys(key_file) if bytes(each) != bytes(old))]
    beside = _beside(key_file, "former.new")
    beside.unlink(missing_ok=True)
    write_secret_file(beside, "".join(f"{bytes(key).hex()}\n" for key in keys[:MAX_FORMER]))
    beside.replace(former)
    new.replace(key_file)
    sync_folder(key_file.parent)


def told_to_terminals(connection: Connection) -> list[SignedEnvelope]:
    """The last successions, as a hello carries them."""
    rows = connection.execute(
        select(_s.old_key, _s.new_key, _s.signature)
        .order_by(_s.at_ms.desc())
        .limit(MAX_SUCCESSIONS)
    )
    return [
        SignedEnvelope(body=f'{{"oldKey":"{old}","newKey":"{new}"}}', signature=signature)
        for old, new, signature in rows
    ]


def has_followed(connection: Connection, before: str, now: str) -> bool:
    """Whether the key of one fingerprint came to be followed by the other one's."""
    steps = {
        fingerprint(parse_public_key(old)): fingerprint(parse_public_key(new))
        for old, new in connection.execute(select(_s.old_key, _s.new_key))
    }
    at = before
    while at in steps and at != now:
        at = steps.pop(at)
    return at == now


def _beside(key_file: Path, what: str) -> Path:
    return key_file.with_name(f"{key_file.name}.{what}")
