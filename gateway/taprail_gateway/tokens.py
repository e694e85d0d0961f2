"""Bearer tokens of apps: JSON Web Tokens by a secret that the gateway shares with who issues them.

The algorithm is pinned to HS256 (RFC 8725 section 3.1: never what the token says of itself), and
`exp` and the claim `id`, which names the user, are required.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import jwt

from taprail_common.errors import OperatorError, SignatureError
from taprail_common.secret_files import read_secret_file

_ALGORITHM: Final = "HS256"
_DAY_S: Final = 86_400

# RFC 7518 section 3.2: a key for HS256 must have at least the hash's 256 bits.
_SECRET_BYTES: Final = 32


class Tokens:
    """Issues and checks tokens with one shared secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def load(cls, secret_file: Path) -> Tokens:
        """Read the secret; raises OperatorError when it is missing, open to others or short."""
        secret = read_secret_file(secret_file, "JWT secret").strip().encode()
        if len(secret) < _SECRET_BYTES:
            raise OperatorError(
                f"JWT secret {secret_file} is shorter than {_SECRET_BYTES} characters",
                fix="use a longer one, such as `openssl rand -hex 32` gives",
            )
        return cls(secret)

    def issue(self, user_id: str, *, now_ms: int, days: int) -> str:
        """A token for a user, valid from now on for some days."""
        now_s = now_ms // 1000
        claims = {"id": user_id, "iat": now_s, "exp": now_s + days * _DAY_S}
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def user_id(self, token: str) -> str:
        """Whom the token names; raises SignatureError when it proves nothing (any more)."""
        if not token.isascii():  # bytes that are no text cannot even be encoded by the library
            raise SignatureError("the token is not valid", code="token_invalid")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                options={"require": ["exp", "id"]},
            )
        except jwt.ExpiredSignatureError as exc:
            raise SignatureError("the token has expired", code="token_expired") from exc
        except jwt.InvalidTokenError as exc:
            raise SignatureError("the token is not valid", code="token_invalid") from exc
        user_id = claims["id"]
        if not isinstance(user_id, str):
            raise SignatureError("the token's claim id is no text", code="token_invalid")
        return user_id
