"""Finds out whether a PIN that came with a tap is the card's: argon2id, off the event loop.

Answers for the hash and its pepper, and for how much of this work there may be at once. Only a tap
whose proof holds is looked at, and only where the card asks for a PIN: nobody gets an answer about
a PIN, or work out of us, without the card. What the answer costs is decided in the commit (`pins`).
A PIN is in memory for the length of one call, and nowhere else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Final

from nacl.exceptions import InvalidkeyError
from nacl.pwhash import argon2id
from nacl.signing import SigningKey

from taprail_common.errors import InputError, LinkError, OperatorError
from taprail_common.pin_block import check_pin, open_pin
from taprail_common.secret_files import read_secret_file
from taprail_common.signing import write_secret_file
from taprail_common.wire import TerminalPayment
from taprail_gateway import cores
from taprail_gateway.authorize import Evidence
from taprail_gateway.ledger import card_pins
from taprail_gateway.ledger.card_pins import StoredPin
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.pins import PinTried

MAX_WAITING: Final = 32
"""PINs that are being looked at or wait for it: three seconds of work. More are told to come
again; their request is stored at the terminal, and nothing was decided."""

_THREADS: Final = 2
_PEPPER_BYTES: Final = 32
_CONTEXT: Final = b"taprail/pin/v1\n"


class PinsBusyError(LinkError):
    """Too many PINs at once; the same request may come again."""

    code = "overloaded"


class Pepper:
    """The secret without which no list of hashes is worth anything: four digits are guessed in
    minutes, whatever the hash. It lies in a file of its own, away from the ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _secret(self) -> bytes:
        try:
            secret = bytes.fromhex(read_secret_file(self._path, "PIN pepper").strip())
        except ValueError:
            secret = b""
        if len(secret) != _PEPPER_BYTES:
            raise OperatorError(
                f"PIN pepper {self._path} is damaged", fix="restore it from its backup"
            )
        return secret

    def make(self, pins: int) -> None:
        """Make the file before the first PIN is set; without it, the others are lost."""
        if self._path.exists():
            return
        if pins:
            raise OperatorError(
                f"there are {pins} PINs, but no pepper {self._path}",
                fix="restore it from its backup, or remove the PINs and set them anew",
            )
        write_secret_file(self._path, secrets.token_hex(_PEPPER_BYTES) + "\n")

    def hashed(self, card_uuid: str, pin: str) -> str:
        """What is stored of a card's PIN."""
        # libsodium's interactive costs (64 MiB, 2 passes): a tenth of a second here.
        verifier: bytes = argon2id.str(
            self._peppered(card_uuid, check_pin(pin)),
            opslimit=argon2id.OPSLIMIT_INTERACTIVE,
            memlimit=argon2id.MEMLIMIT_INTERACTIVE,
        )
        return verifier.decode("ascii")

    def is_right(self, stored: StoredPin, pin: str) -> bool:
        """Whether this is the card's PIN."""
        try:
            return bool(
                argon2id.verify(
                    stored.verifier.encode("ascii"), self._peppered(stored.card_uuid, pin)
                )
            )
        except InvalidkeyError:
            return False

    def _peppered(self, card_uuid: str, pin: str) -> bytes:
        about = _CONTEXT + card_uuid.encode() + b"\n" + pin.encode()
        return hmac.digest(self._secret, about, hashlib.sha256)


class PinDesk:
    """Looks at PINs for the HTTP edge. `ask_above_units` is from where on terminals ask for a PIN
    before they send; None: only when a card wants it."""

    def __init__(
        self,
        ledger: Ledger,
        key: SigningKey,
        pepper: Pepper,
        ask_above_units: int | None = None,
        former_keys: Sequence[SigningKey] = (),
    ) -> None:
        self._ledger = ledger
        self._keys = (key, *former_keys)
        self._pepper = pepper
        self._threads = ThreadPoolExecutor(
            _THREADS, thread_name_prefix="pins", initializer=cores.roam
        )
        self._waiting = 0
        self.ask_above_units = ask_above_units

    async def tried(self, payment: TerminalPayment, evidence: Evidence) -> PinTried | None:
        """What became of the PIN that came with a tap; None where none came, or none is asked for,
        or what came was not for this tap."""
        sealed, digest = payment.pin, evidence.uid_digest
        if sealed is None or digest is None or evidence.problem is not None:
            return None
        stored = await self._ledger.read(lambda db: card_pins.of_digest(db, digest))
        if stored is None or payment.amount <= stored.above_units:
            return None
        pin = self._opened(payment, sealed)
        if pin is None:
            return None
        return PinTried(stored.set_at_ms, await self._looked_at(stored, pin))

    def _opened(self, payment: TerminalPayment, sealed: str) -> str | None:
        """The PIN; one that was sealed before the gateway's key changed may be on its way yet."""
        for key in self._keys:
            try:
                return open_pin(key, payment.request_id, payment.proof, sealed)
            except InputError:
                continue
        return None

    async def _looked_at(self, stored: StoredPin, pin: str) -> bool:
        if self._waiting >= MAX_WAITING:
            raise PinsBusyError("too many PINs at once; ask again later")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._pepper.is_right, stored, pin)
        finally:
            self._waiting -= 1
