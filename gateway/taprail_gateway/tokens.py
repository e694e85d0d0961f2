"""Bearer tokens of apps: JSON Web Tokens by a shared secret, or by the public key of an issuer.

Answers for whom a token names and what it may be used for; whether there is such a user, what their
role allows, and whether the token was revoked, is the directory's business. Each key has its one
algorithm, whatever the token says of itself (RFC 8725 section 3.1): a secret HS256, a public key
EdDSA. The secrets' file may change at any time; `look` reads it again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from taprail_common.errors import OperatorError, SignatureError
from taprail_common.ids import IDENTIFIER_PATTERN
from taprail_common.secret_files import read_secret_file
from taprail_common.signing import parse_public_key

MAX_KEYS: Final = 8
"""A token without a key id is tried with all of them; rotation needs two."""

MAX_TOKEN_CHARACTERS: Final = 4_096

KEY_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"
_KEY_ID: Final = re.compile(KEY_ID_PATTERN, re.ASCII)
_TOKEN_ID: Final = re.compile(IDENTIFIER_PATTERN, re.ASCII)
_DAY_S: Final = 86_400

# RFC 7518 section 3.2: a key for HS256 must have at least the hash's 256 bits.
_SECRET_BYTES: Final = 32

_FileState = tuple[int, int, int]

_log = structlog.get_logger("tokens")


class Scope(StrEnum):
    """As what somebody may act."""

    CUSTOMER = "customer"
    """Pays with cards of their own, and sees what became of it."""
    MERCHANT = "merchant"
    """Sees the sales of merchants of their own, and works their terminals."""
    OPERATOR = "operator"
    """Sees all, and sets what there is to set."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key that proves tokens; `id` is what their header calls it, None: it has no name."""

    id: str | None
    algorithm: str
    key: bytes | Ed25519PublicKey = field(repr=False)

    @property
    def secret(self) -> bytes:
        """The secret that it signs with; a public key has none."""
        if not isinstance(self.key, bytes):
            raise TypeError("a public key signs nothing")
        return self.key

    @classmethod
    def shared(cls, secret: bytes, key_id: str | None = None) -> TokenKey:
        """A secret; whoever has it can issue."""
        return cls(key_id, "HS256", secret)

    @classmethod
    def public(cls, key_id: str, hex_digits: str) -> TokenKey:
        """The Ed25519 key of who issues elsewhere; raises OperatorError when it is none."""
        raw = bytes(parse_public_key(hex_digits))
        return cls(key_id, "EdDSA", Ed25519PublicKey.from_public_bytes(raw))


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token proves; without scopes of its own it is a customer's. `token_id` is what it may
    be revoked by, if it has an id of that form; `key` is the one that proved it."""

    user_id: str
    scopes: frozenset[Scope]
    until_s: int
    token_id: str | None = None
    key: TokenKey | None = field(default=None, repr=False)


class Tokens:
    """Checks tokens with any of its keys, and issues them with the first."""

    def __init__(
        self,
        secrets: Sequence[TokenKey],
        public: Sequence[TokenKey] = (),
        file: Path | None = None,
    ) -> None:
        self._public = tuple(public)
        self.use(secrets)
        self._file = file
        self._seen: _FileState | None = None  # unset: the first look reads it once more

    @classmethod
    def load(cls, secret_file: Path, public_keys: Mapping[str, str] | None = None) -> Tokens:
        """Read the secrets; raises OperatorError when they cannot be used."""
        public = [TokenKey.public(key_id, text) for key_id, text in (public_keys or {}).items()]
        return cls(_read_beside(secret_file, public), public, secret_file)

    def look(self) -> None:
        """Read the secrets again if their file was changed. What cannot be used is told in the log,
        and changes nothing."""
        state = None if self._file is None else _state_of(self._file)
        if self._file is None or state in {None, self._seen}:
            return
        self._seen, before = state, self._keys
        try:
            self.use(_read_beside(self._file, self._public))
        except OperatorError as exc:
            _log.error("tokens.secrets_unusable", reason=exc.message, fix=exc.fix)
        if self._keys != before:
            _log.info("tokens.secrets_changed", signs=self._signing.id, keys=len(self._keys))

    def use(self, secrets: Sequence[TokenKey]) -> None:
        """Sign with the first of these from now on, and prove by all of them."""
        self._signing = secrets[0]
        self._keys = (*secrets, *self._public)

    def holds(self, claims: Claims, now_s: float) -> bool:
        """Whether what was proved once still is: time has passed, and keys are retired."""
        return now_s < claims.until_s and claims.key in self._keys

    def issue(
        self,
        user_id: str,
        *,
        now_ms: int,
        days: int,
        scopes: Collection[Scope] | None = None,
        token_id: str | None = None,
    ) -> str:
        """A token for a user, valid from now on for some days; by its id it can be revoked."""
        now_s = now_ms // 1000
        claims: dict[str, Any] = {"id": user_id, "iat": now_s, "exp": now_s + days * _DAY_S}
        if scopes is not None:
            claims["scopes"] = sorted(scopes)
        if token_id is not None:
            claims["jti"] = token_id
        key = self._signing
        headers = None if key.id is None else {"kid": key.id}
        return jwt.encode(claims, key.secret, algorithm=key.algorithm, headers=headers)

    def check(self, token: str) -> Claims:
        """What a token proves; raises SignatureError when it proves nothing (any more)."""
        # Bytes that are no text cannot even be encoded by the library.
        if not token.isascii() or len(token) > MAX_TOKEN_CHARACTERS:
            raise _invalid("the token is not valid")
        named = _key_id(token)
        keys = [key for key in self._keys if named is None or key.id in {named, None}]
        for key in keys:
            claims = _proved_by(key, token)
            if claims is not None:
                until_s = int(claims["exp"])
                return Claims(_user_id(claims), _scopes(claims), until_s, _token_id(claims), key)
        raise _invalid("the token is not valid")


def _state_of(file: Path) -> _FileState | None:
    """What tells a file from the one that it replaces; None when there is none right now."""
    try:
        found = file.stat()
    except OSError:  # what was read is good until there is another
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _read_beside(secret_file: Path, public: Sequence[TokenKey]) -> list[TokenKey]:
    secrets = read_secrets(secret_file)
    names = [key.id for key in (*secrets, *public)]
    if len(names) > MAX_KEYS or len(set(names)) < len(names):
        raise OperatorError(
            f"JWT secret {secret_file} and gateway.jwt_public_keys do not go together",
            fix=f"give each key another id, and {MAX_KEYS} keys at most",
        )
    return secrets


def read_secrets(secret_file: Path) -> list[TokenKey]:
    """The secrets of a file: one a line, each with `id:` before it or, at most one, without."""
    lines = read_secret_file(secret_file, "JWT secret").split("\n")
    keys = [_secret(secret_file, line.strip()) for line in lines if line.strip()]
    if not keys:
        raise OperatorError(f"JWT secret {secret_file} is empty", fix="restore it from its backup")
    return keys


def _secret(secret_file: Path, line: str) -> TokenKey:
    before, colon, after = line.partition(":")
    key_id, secret = (before, after) if colon else (None, line)
    if key_id is not None and _KEY_ID.fullmatch(key_id) is None:
        raise OperatorError(
            f"JWT secret {secret_file} has a line whose key id is none",
            fix="write a line like `2026-08:secret`",
        )
    if len(secret.encode()) < _SECRET_BYTES:
        raise OperatorError(
            f"JWT secret {secret_file} is shorter than {_SECRET_BYTES} characters",
            fix="use a longer one, such as `openssl rand -hex 32` gives",
        )
    return TokenKey.shared(secret.encode(), key_id)


def _key_id(token: str) -> str | None:
    try:
        named = jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError as exc:
        raise _invalid("the token is not valid") from exc
    return None if named is None else str(named)


def _proved_by(key: TokenKey, token: str) -> dict[str, Any] | None:
    """A token's claims; None when this key did not sign it. Raises SignatureError if it did, and
    they do not hold."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token, key.key, algorithms=[key.algorithm], options={"require": ["exp", "id"]}
        )
    except jwt.ExpiredSignatureError as exc:
        raise SignatureError("the token has expired", code="token_expired") from exc
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
        return None
    except jwt.InvalidTokenError as exc:
        raise _invalid("the token is not valid") from exc
    return claims


def _user_id(claims: Mapping[str, Any]) -> str:
    user_id = claims["id"]
    if not isinstance(user_id, str):
        raise _invalid("the token's claim id is no text")
    return user_id


def _token_id(claims: Mapping[str, Any]) -> str | None:
    """The claim `jti`. One of another form is somebody else's, and cannot be revoked here."""
    given = claims.get("jti")
    return given if isinstance(given, str) and _TOKEN_ID.fullmatch(given) else None


def _scopes(claims: Mapping[str, Any]) -> frozenset[Scope]:
    """Of `scopes`, a list, or of `scope` (RFC 8693 section 4.2); others' scopes are left out."""
    given = claims.get("scopes", claims.get("scope"))
    if given is None:
        return frozenset({Scope.CUSTOMER})
    names = given.split(" ") if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _invalid("the token's claim scopes is no list of texts")
    return frozenset(scope for scope in Scope if scope.value in names)


def _invalid(message: str) -> SignatureError:
    return SignatureError(message, code="token_invalid")
