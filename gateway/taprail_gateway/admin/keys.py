"""`taprail admin key`: the master key, and changing over to another one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from taprail_common.errors import OperatorError
from taprail_common.signing import write_secret_file
from taprail_gateway import rotation
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import actions
from taprail_gateway.master_keys import KeyRing, alone, key_id, read_ring, write_ring

keys: Final = typer.Typer(help="The master key of the wallets in custody.", no_args_is_help=True)

_SUBJECT: Final = "master key"
_PASSES: Final = 3
"""A gateway may have wrapped something by the former key while the first pass went on."""


@keys.command("list")
def list_keys(context: typer.Context, as_json: Json = False) -> None:
    """List the master keys by their ids, and how much is wrapped by each."""
    session = session_of(context)
    ring = read_ring(session.settings.master_key_file)
    counts = session.read(rotation.count_by_key)
    rows: list[dict[str, Any]] = [
        {"id": key_id(key).hex(), "use": use, "values": counts.pop(key_id(key), 0)}
        for use, key in _named(ring)
    ]
    rows += [
        {"id": None if each is None else each.hex(), "use": _foreign(each), "values": count}
        for each, count in counts.items()
    ]
    columns = {"id": "key", "use": "use", "values": "wrapped by it"}
    output.listing(rows, as_json=as_json, columns=columns, what="master key")


@keys.command("rotate")
def rotate(
    context: typer.Context,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare", help="Only make the next key known, for gateways that read a copy."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Change over to a new master key and wrap everything by it. Gateways go on meanwhile.

    Run it again when it was interrupted: it goes on. A gateway that reads the file itself learns of
    the new key from it. Where it reads a copy (a credential of systemd, another machine), run this
    with --prepare first, bring the file there and restart it; then run this without.
    """
    session = session_of(context)
    path = session.settings.master_key_file
    with alone(path):
        ring = read_ring(path)
        if prepare:
            _prepare(session, path, ring, as_json=as_json)
            return
        former = key_id(ring.current)
        if not _is_unfinished(session, ring):
            write_ring(path, ring := ring.prepared().promoted())
            _note(session, "key-rotate", former, key_id(ring.current))
        rewrapped = _rewrap_all(session, Custody.load(path))
        left = _left(session, ring)
    current = key_id(ring.current).hex()
    data = {"current": current, "rewrapped": rewrapped, "left": left}
    output.done(data, f"{rewrapped} values are wrapped by {current} now", as_json=as_json)
    if left:
        raise OperatorError(f"{left} values are by another key yet", fix="run this again")


@keys.command("retire")
def retire(
    context: typer.Context,
    archive: Annotated[
        Path | None,
        typer.Option(help="Move the old keys to this new file: older backups need them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take old master keys out of the file, once nothing is wrapped by them any more.

    A backup of the ledger from before the change can only be opened by the key of then.
    """
    session = session_of(context)
    path = session.settings.master_key_file
    with alone(path):
        ring = read_ring(path)
        if not ring.old:
            raise OperatorError("there is no old master key", fix="see `taprail admin key list`")
        left = _left(session, ring)
        if left:
            raise OperatorError(
                f"{left} values are not by the current key", fix="run `taprail admin key rotate`"
            )
        if archive is not None:
            _archive(archive, ring)
        retired = [key_id(key).hex() for key in ring.old]
        write_ring(path, ring.without_old())
        for each in ring.old:
            _note(session, "key-retire", key_id(each), None)
    output.done({"retired": retired}, f"{len(retired)} old keys are gone", as_json=as_json)


def _prepare(session: Session, path: Path, ring: KeyRing, *, as_json: bool) -> None:
    prepared = ring.prepared()
    if prepared.upcoming is None:
        raise AssertionError("a ring that was prepared has a key to come")
    upcoming = key_id(prepared.upcoming)
    if prepared != ring:
        write_ring(path, prepared)
        _note(session, "key-prepare", None, upcoming)
    sentence = f"{upcoming.hex()} is known; bring {path} to all gateways, then rotate"
    output.done({"next": upcoming.hex()}, sentence, as_json=as_json)


def _is_unfinished(session: Session, ring: KeyRing) -> bool:
    """Whether an earlier change is still going on: then it is finished, and no other one begun."""
    counts = session.read(rotation.count_by_key)
    return bool(ring.old) and counts.total() > counts[key_id(ring.current)]


def _rewrap_all(session: Session, custody: Custody) -> int:
    total = 0
    for _ in range(_PASSES):
        done = sum(_one_pass(session, custody))
        total += done
        if not done:
            break
    return total


def _one_pass(session: Session, custody: Custody) -> Iterator[int]:
    for place in rotation.PLACES:
        after: Any = None
        while True:
            lot = session.write(
                partial(rotation.rewrap_some, custody=custody, place=place, after=after)
            )
            yield lot.rewrapped
            after = lot.last_key
            if after is None:
                break


def _left(session: Session, ring: KeyRing) -> int:
    counts = session.read(rotation.count_by_key)
    return counts.total() - counts[key_id(ring.current)]


def _archive(path: Path, ring: KeyRing) -> None:
    newest, *older = ring.old
    try:
        write_secret_file(path, KeyRing(newest, old=tuple(older)).text)
    except FileExistsError:
        raise OperatorError(f"{path} exists already", fix="name a new file") from None


def _note(session: Session, action: str, before: bytes | None, after: bytes | None) -> None:
    by = session.by()
    told = [None if each is None else each.hex() for each in (before, after)]
    session.write(
        lambda connection: actions.note(
            connection, action, _SUBJECT, by, before=told[0], after=told[1]
        )
    )


def _named(ring: KeyRing) -> Iterator[tuple[str, bytes]]:
    yield "wraps", ring.current
    if ring.upcoming is not None:
        yield "comes next", ring.upcoming
    for key in ring.old:
        yield "opens only", key


def _foreign(each: bytes | None) -> str:
    return "of an older format" if each is None else "NOT IN THE FILE"
