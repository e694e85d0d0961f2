"""Keys in custody: made at random, kept wrapped, opened only to sign.

Every key and secret is wrapped by one master key that lives in a file beside the ledger, never in
it. A wrapped value is bound to its name, so that one cannot be put in another's place. Whoever has
the master key file and the ledger has the money: see THREAT_MODEL.md.

Format: version (1 byte) ‖ nonce (12) ‖ AES-256-GCM ciphertext and tag (NIST SP 800-38D), with the
name as associated data.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
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
from taprail_common.secret_files import read_secret_file
from taprail_common.signing import write_secret_file
from taprail_gateway.ledger.schema import meta

_KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
# NIST SP 800-38D section 8.2.2: a random 96-bit nonce is good for 2³² wraps under one key.
_NONCE_BYTES: Final = 12
_WRAP_INFO: Final = b"taprail/custody/wrap/v1"
_PEPPER: Final = "uid_pepper"


def create_master_key(path: Path) -> None:
    """Make a new master key file for its owner alone; OperatorError when there is one already."""
    try:
        write_secret_file(path, secrets.token_hex(_KEY_BYTES) + "\n")
    except FileExistsError:
        raise OperatorError(
            f"a master key exists at {path}", fix="keep it: the wallets are lost without it"
        ) from None


def address_of(key: PrivateKey) -> str:
    """The account of a key: lower-case 0x and the last 20 bytes of keccak(public key)."""
    return "0x" + keccak256(key.public_key.format(compressed=False)[1:])[-20:].hex()


class Custody:
    """The master key in memory. Its repr, its errors and its logs show nothing of it."""

    def __init__(self, master_key: bytes) -> None:
        derived = HKDF(SHA256(), _KEY_BYTES, salt=None, info=_WRAP_INFO).derive(master_key)
        self._cipher = AESGCM(derived)
        self._uid_pepper: bytes | None = None

    @classmethod
    def load(cls, master_key_file: Path) -> Custody:
        """Read the master key; OperatorError when it is missing, damaged or open to others."""
        text = read_secret_file(master_key_file, "master key").strip()
        try:
            raw = bytes.fromhex(text)
        except ValueError:
            raw = b""
        if len(raw) != _KEY_BYTES:
            raise OperatorError(
                f"the master key {master_key_file} is damaged", fix="restore it from its backup"
            )
        return cls(raw)

    def attach(self, connection: Connection) -> None:
        """Take the pepper of UID digests from the ledger; the first time, make and store it.

        To be passed to `Ledger.write_now`. It is a secret of its own, wrapped like any other, so
        that the digests outlive a change of the master key.
        """
        known = select(meta.c.value).where(meta.c.key == _PEPPER)
        stored = connection.execute(known).scalar()
        if stored is None:
            stored = self.wrap_secret(_PEPPER, secrets.token_bytes(_KEY_BYTES)).hex()
            connection.execute(insert(meta).values(key=_PEPPER, value=stored))
        self._uid_pepper = self.unwrap_secret(_PEPPER, bytes.fromhex(stored))

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

    def uid_digest(self, uid: bytes) -> str:
        """HMAC-SHA256 of a card's UID, 64 hex digits: finds the card without storing its UID."""
        if self._uid_pepper is None:
            raise OperatorError("custody is not attached to a ledger", fix="attach it at start")
        return hmac.new(self._uid_pepper, uid, hashlib.sha256).hexdigest()

    def _wrap(self, name: bytes, secret: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, secret, _VERSION + name)

    def _unwrap(self, name: bytes, wrapped: bytes) -> bytes:
        if wrapped[:1] != _VERSION:
            raise OperatorError("a wrapped key has an unknown format", fix="upgrade the program")
        nonce, sealed = wrapped[1 : 1 + _NONCE_BYTES], wrapped[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, sealed, _VERSION + name)
        except (InvalidTag, ValueError) as exc:
            raise OperatorError("a wrapped key does not open", fix=_RESTORE) from exc


_RESTORE: Final = "use the master key file that belongs to this ledger"


def _key_name(address: str) -> bytes:
    return b"key/" + address.lower().encode()


def _secret_name(name: str) -> bytes:
    return b"secret/" + name.encode()
