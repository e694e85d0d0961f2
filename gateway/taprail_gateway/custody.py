"""Keys in custody: made at random, kept wrapped, opened only to sign.

Every key and secret is wrapped by one master key that lives in a file beside the ledger, never in
it. A wrapped value is bound to its name, so that one cannot be put in another's place, and says by
which master key it is wrapped. That key may be exchanged while gateways run: a key that is not
known yet is looked for in the file, and nothing that was known is forgotten before the process
ends. Whoever has the master key file and the ledger has the money: see THREAT_MODEL.md.

Format: version (1 byte, 2) ‖ the master key's id (8) ‖ nonce (12) ‖ AES-256-GCM ciphertext and tag
(NIST SP 800-38D), with version, id and the name as associated data. Version 1 had no id.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from coincurve import PrivateKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, insert, select

from taprail_common.errors import OperatorError
from taprail_common.hashing import keccak256
from taprail_gateway.ledger.schema import meta
from taprail_gateway.master_keys import (
    ID_BYTES,
    KEY_BYTES,
    KeyRing,
    create_master_key,
    key_id,
    read_ring,
)

__all__ = ["PEPPER", "PREFIX_BYTES", "Custody", "address_of", "create_master_key", "wrapped_by"]

_VERSION: Final = b"\x02"
_WITHOUT_ID: Final = b"\x01"
PREFIX_BYTES: Final = 1 + ID_BYTES
"""Of a wrapped value: what tells by which master key it is wrapped."""
# NIST SP 800-38D section 8.2.2: a random 96-bit nonce is good for 2³² wraps under one key.
_NONCE_BYTES: Final = 12
_WRAP_INFO: Final = b"taprail/custody/wrap/v1"
PEPPER: Final = "uid_pepper"
"""Where in `meta` the key of UID digests is, and the name that it is wrapped under."""


def wrapped_by(prefix: bytes) -> bytes | None:
    """The id of the master key of a value that begins so; None: of an older format, which tells
    none."""
    return prefix[1:PREFIX_BYTES] if prefix[:1] == _VERSION else None


def address_of(key: PrivateKey) -> str:
    """The account of a key: lower-case 0x and the last 20 bytes of keccak(public key)."""
    return "0x" + keccak256(key.public_key.format(compressed=False)[1:])[-20:].hex()


class Custody:
    """The master keys in memory. Its repr, its errors and its logs show nothing of them."""

    def __init__(self, ring: KeyRing, file: Path | None = None) -> None:
        self._file = file
        self._stamp = _stamp(file)
        self._ciphers: dict[bytes, AESGCM] = {}
        self._uid_pepper: bytes | None = None
        self._current = self._learn(ring)

    @classmethod
    def load(cls, master_key_file: Path) -> Custody:
        """Read the master key; OperatorError when it is missing, damaged or open to others."""
        return cls(read_ring(master_key_file), master_key_file)

    @property
    def current_id(self) -> bytes:
        """The name of the master key that wraps."""
        return self._current

    def attach(self, connection: Connection) -> None:
        """Take the pepper of UID digests from the ledger; the first time, make and store it.

        To be passed to `Ledger.write_now`. It is a secret of its own, wrapped like any other, so
        that the digests outlive a change of the master key.
        """
        known = select(meta.c.value).where(meta.c.key == PEPPER)
        stored = connection.execute(known).scalar()
        if stored is None:
            stored = self.wrap_secret(PEPPER, secrets.token_bytes(KEY_BYTES)).hex()
            connection.execute(insert(meta).values(key=PEPPER, value=stored))
        self._uid_pepper = self.unwrap_secret(PEPPER, bytes.fromhex(stored))

    def new_key(self) -> tuple[str, bytes]:
        """Make a secp256k1 key; gives its address (lower-case 0x) and the wrapped key."""
        key = PrivateKey()
        address = address_of(key)
        return address, self._wrap(_key_name(address), key.secret)

    def unwrap(self, address: str, wrapped: bytes) -> PrivateKey:
        """The key of an address; OperatorError when it is not that or not by this master key."""
        key = PrivateKey(self._unwrap(_key_name(address), wrapped))
        if address_of(key) != address.lower():
            raise OperatorError(f"the key of {address} is another's", fix=_RESTORE)
        return key

    def wrap_secret(self, name: str, secret: bytes) -> bytes:
        """Wrap a secret under a name; it can be unwrapped under that name only."""
        return self._wrap(_secret_name(name), secret)

    def unwrap_secret(self, name: str, wrapped: bytes) -> bytes:
        """The secret of this name; OperatorError when it is not that or not by this master key."""
        return self._unwrap(_secret_name(name), wrapped)

    def rewrap_key(self, address: str, wrapped: bytes) -> bytes | None:
        """An address's key under the current master key; None when it is so already."""
        return self._rewrap(_key_name(address), wrapped)

    def rewrap_secret(self, name: str, wrapped: bytes) -> bytes | None:
        """A secret under the current master key; None when it is so already."""
        return self._rewrap(_secret_name(name), wrapped)

    def uid_digest(self, uid: bytes) -> str:
        """HMAC-SHA256 of a card's UID, 64 hex digits: finds the card without storing its UID."""
        if self._uid_pepper is None:
            raise OperatorError("custody is not attached to a ledger", fix="attach it at start")
        return hmac.new(self._uid_pepper, uid, hashlib.sha256).hexdigest()

    def _rewrap(self, name: bytes, wrapped: bytes) -> bytes | None:
        if wrapped_by(wrapped) == self._current:
            return None
        return self._wrap(name, self._unwrap(name, wrapped))

    def _wrap(self, name: bytes, secret: bytes) -> bytes:
        if _stamp(self._file) != self._stamp:  # else it would go on with a key that was exchanged
            self._look()
        head, nonce = _VERSION + self._current, secrets.token_bytes(_NONCE_BYTES)
        return head + nonce + self._ciphers[self._current].encrypt(nonce, secret, head + name)

    def _unwrap(self, name: bytes, wrapped: bytes) -> bytes:
        if wrapped[:1] == _WITHOUT_ID:
            return self._unwrap_by_any(name, wrapped)
        by = wrapped_by(wrapped)
        if by is None:
            raise OperatorError("a wrapped key has an unknown format", fix="upgrade the program")
        if by not in self._ciphers and self._file is not None:
            self._look()
        cipher = self._ciphers.get(by)
        if cipher is None:
            raise OperatorError("a wrapped key is by another master key", fix=_RESTORE)
        return _opened(cipher, wrapped, PREFIX_BYTES, name)

    def _unwrap_by_any(self, name: bytes, wrapped: bytes) -> bytes:
        for cipher in self._ciphers.values():
            with suppress(OperatorError):  # by another one
                return _opened(cipher, wrapped, len(_WITHOUT_ID), name)
        raise OperatorError("a wrapped key does not open", fix=_RESTORE)

    def _look(self) -> None:
        """Read the file again: somebody may have exchanged the master key."""
        if self._file is not None:
            self._stamp = _stamp(self._file)
            self._current = self._learn(read_ring(self._file))

    def _learn(self, ring: KeyRing) -> bytes:
        """Keep what is new of a ring, and all that was known; the id of its current key."""
        ids = [key_id(key) for key in ring.keys]
        new = {each: _cipher(key) for each, key in zip(ids, ring.keys, strict=True)}
        self._ciphers = {**self._ciphers, **new}
        return ids[0]


_RESTORE: Final = "use the master key file that belongs to this ledger"


def _key_name(address: str) -> bytes:
    return b"key/" + address.lower().encode()


def _secret_name(name: str) -> bytes:
    return b"secret/" + name.encode()


def _cipher(master_key: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=None, info=_WRAP_INFO).derive(master_key))


def _opened(cipher: AESGCM, wrapped: bytes, prefix: int, name: bytes) -> bytes:
    nonce_end = prefix + _NONCE_BYTES
    head, nonce, sealed = wrapped[:prefix], wrapped[prefix:nonce_end], wrapped[nonce_end:]
    try:
        return cipher.decrypt(nonce, sealed, head + name)
    except (InvalidTag, ValueError) as exc:
        raise OperatorError("a wrapped key does not open", fix=_RESTORE) from exc


def _stamp(file: Path | None) -> tuple[int, int] | None:
    """What differs once the file was replaced; None without a file, or while it is not there."""
    try:
        status = None if file is None else file.stat()
    except OSError:
        return None
    return None if status is None else (status.st_ino, status.st_mtime_ns)
