"""`[push]`: what several gateways on one ledger share beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator

from taprail_common.config import Settings
from taprail_common.errors import OperatorError

if TYPE_CHECKING:
    from taprail_gateway.push_shared import SharedLine

_SCHEMES: Final = ("redis", "rediss", "unix")


class PushSettings(Settings):
    """The URL may hold a password, so nobody prints it."""

    redis_url: SecretStr | None = None
    """As redis://user:password@host:6379/0, rediss://… with TLS, or unix:///run/redis/redis.sock."""

    @field_validator("redis_url")
    @classmethod
    def _is_of_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        try:  # no word of the URL in the error: a password may be in any part
            parts = urlsplit(url.get_secret_value())
            place = parts.path if parts.scheme == "unix" else (parts.hostname, parts.port)[0]
        except ValueError:
            raise ValueError("is no URL that can be read; percent-encode the password") from None
        if parts.scheme not in _SCHEMES or not place:
            raise ValueError("must begin with redis://, rediss:// or unix:// and name a server")
        return url


def shared_line(
    settings: PushSettings,
    gateway_id: str,
    on_ring: Callable[[], None],
    on_said: Callable[[str, str, Mapping[str, object]], None],
) -> SharedLine | None:
    """What the gateways share, if they are to; raises OperatorError without Redis's library."""
    if settings.redis_url is None:
        return None
    try:
        from taprail_gateway.push_shared import SharedLine
    except ModuleNotFoundError as exc:
        raise OperatorError(
            "push.redis_url needs a library that is not here",
            fix="pip install 'taprail[redis]', or leave redis_url out",
        ) from exc
    return SharedLine(settings.redis_url.get_secret_value(), gateway_id, on_ring, on_said)
