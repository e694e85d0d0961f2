"""Ed25519 signatures over exact bytes, each under a domain of its own.

A signature made for one purpose is worth nothing for another: the domain comes first in what is
signed. Bodies are signed as they travel, never re-encoded, and kept beside the signature as
evidence. Format: RFC 8032, detached, 64 bytes, base64 in headers and JSON.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from enum import Enum
from pathlib import Path
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from taprail_common.errors import OperatorError, SignatureError
from taprail_common.secret_files import read_secret_file

SIGNATURE_BYTES: Final = 64
_KEY_BYTES: Final = 32


class Domain(Enum):
    """What a signature is for."""

    PAYMENT_REQUEST = b"taprail/payment-request/v1\n"
    VERDICT = b"taprail/verdict/v1\n"
    NOTICE = b"taprail/notice/v1\n"
    COMMAND = b"taprail/command/v1\n"
    CONNECT = b"taprail/connect/v1\n"
    QUERY = b"taprail/query/v1\n"
    ANSWER = b"taprail/answer/v1\n"
    AUDIT = b"taprail/audit/v1\n"
    OFFLINE_POLICY = b"taprail/offline-policy/v1\n"
    TECHNICIAN = b"taprail/technician/v1\n"
    CHANGES = b"taprail/changes/v1\n"
    NEXT_KEY = b"taprail/next-key/v1\n"
    SUCCESSION = b"taprail/succession/v1\n"
    HEARTBEAT = b"taprail/heartbeat/v1\n"
    CONFIG = b"taprail/config/v1\n"
    CONFIG_REPORT = b"taprail/config-report/v1\n"
    DIAGNOSIS = b"taprail/diagnosis/v1\n"


def sign(key: SigningKey, domain: Domain, body: bytes, *, about: bytes = b"") -> str:
    """Sign a body; `about` is the request that it answers, if any. Gives base64."""
    signature: bytes = key.sign(_message(domain, body, about)).signature
    return base64.b64encode(signature).decode("ascii")


def verify(
    key: VerifyKey, domain: Domain, body: bytes, signature: str, *, about: bytes = b""
) -> None:
    """Raise SignatureError unless the key signed exactly this, for this purpose."""
    try:
        raw = base64.b64decode(signature, validate=True)
        if len(raw) != SIGNATURE_BYTES:
            raise SignatureError("the signature is not 64 bytes of base64")
        key.verify(_message(domain, body, about), raw)
    except (binascii.Error, ValueError) as exc:
        raise SignatureError("the signature is not 64 bytes of base64") from exc
    except BadSignatureError as exc:
        raise SignatureError("the signature is not by the expected key") from exc


def _message(domain: Domain, body: bytes, about: bytes) -> bytes:
    # The hash has a fixed length, so body and subject cannot run into each other.
    return domain.value + hashlib.sha256(about).digest() + body


def public_key_text(key: VerifyKey) -> str:
    """A public key as 64 hex digits, as configurations and commands show it."""
    return bytes(key).hex()


def parse_public_key(text: str) -> VerifyKey:
    """Read a public key from 64 hex digits; raises OperatorError."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise OperatorError(
            "not an Ed25519 public key",
            fix="give 64 hex digits, as `taprail terminal init` and `taprail admin init` print",
        )
    return VerifyKey(raw)


def fingerprint(key: VerifyKey) -> str:
    """What two people compare: 64 bits of the key's SHA-256 as `1f2e-3d4c-5b6a-7988`."""
    digits = hashlib.sha256(bytes(key)).hexdigest()[:16]
    return "-".join(digits[i : i + 4] for i in range(0, 16, 4))


def gateway_id(key: VerifyKey) -> str:
    """A gateway is named by its key: nobody else can answer to the name."""
    return "gw_" + fingerprint(key).replace("-", "")


def create_key_file(path: Path) -> SigningKey:
    """Make a new private key and store it, readable by its owner alone, on disk for good."""
    key = SigningKey.generate()
    write_secret_file(path, bytes(key).hex() + "\n")
    return key


def load_key_file(path: Path, what: str) -> SigningKey:
    """Read a private key; raises OperatorError that says what to do when it cannot be used."""
    text = read_secret_file(path, what)
    try:
        raw = bytes.fromhex(text.strip())
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise OperatorError(f"{what} {path} is damaged", fix="restore it from its backup")
    return SigningKey(raw)


def write_secret_file(path: Path, text: str) -> None:
    """Create a file of mode 600 that must not exist yet, synced together with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable: a new file is lost with its folder otherwise."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
