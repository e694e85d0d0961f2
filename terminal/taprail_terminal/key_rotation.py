"""Goes over to the terminal's next key, once there is one: announced first, then put in place.

The next key lies beside the one in use (`<key_file>.next`), made by whoever wants the change. The
gateway takes both from when it was told until the next one was used for the first time, so there is
no moment at which the terminal cannot pay. Each step is one whole file or one whole answer; cut off
anywhere, the terminal starts with the old key and goes on from there, or with the new one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from nacl.signing import SigningKey

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.errors import LinkError, OperatorError, PartError, SignatureError
from taprail_common.fleet_wire import KEY_PATH, NextKey
from taprail_common.signing import Domain, load_key_file, sync_folder
from taprail_terminal.atomic_file import replace_file
from taprail_terminal.gateway_link import GatewayLink
from taprail_terminal.identity import Identity

_LOOK_EVERY_S: Final = 5.0
_RETRY_S: Final = 20.0
_WHAT: Final = "next device key"

_log = structlog.get_logger()


def next_key_file(key_file: Path) -> Path:
    """Where the key that comes next lies."""
    return key_file.with_name(key_file.name + ".next")


def make_next_key(key_file: Path) -> SigningKey:
    """Make the key that comes next, or give the one that was made before: that one may have been
    announced. One that is damaged was not. Raises OSError when none can be written."""
    path = next_key_file(key_file)
    if path.exists():
        with suppress(OperatorError):
            return load_key_file(path, _WHAT)
    replace_file(path, f"{bytes(SigningKey.generate()).hex()}\n".encode())
    return load_key_file(path, _WHAT)


async def change_over(link: GatewayLink, identity: Identity, key_file: Path, now_ms: int) -> None:
    """Announce the next key and use it from now on. Raises LinkError, SignatureError,
    OperatorError or PartError; then the old key goes on."""
    path = next_key_file(key_file)
    key = await asyncio.to_thread(load_key_file, path, _WHAT)
    body = NextKey.of(identity.terminal_id, key, now_ms).to_json()
    await link.tell(KEY_PATH, body, Domain.NEXT_KEY)
    crash("key.announced")
    await asyncio.to_thread(_put_in_place, path, key_file)
    crash("key.placed")
    identity.use(key)


async def watch(link: GatewayLink, identity: Identity, key_file: Path, clock: Clock) -> None:
    """Change over whenever there is a next key; for ever."""
    while True:
        pause_s = _LOOK_EVERY_S
        if await asyncio.to_thread(next_key_file(key_file).exists):
            try:
                await change_over(link, identity, key_file, clock.now_ms())
                _log.info("the next device key is in use", fingerprint=identity.fingerprint)
            except (LinkError, SignatureError, OperatorError, PartError) as exc:
                _log.warning("the next device key is not in use yet", reason=str(exc))
                pause_s = _RETRY_S
        await asyncio.sleep(pause_s)


def _put_in_place(path: Path, key_file: Path) -> None:
    try:
        path.replace(key_file)
        sync_folder(key_file.parent)
    except OSError as exc:
        raise PartError(
            "disk", f"{key_file} cannot be written ({exc.strerror})", fix="check the disk"
        ) from exc
