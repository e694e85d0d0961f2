"""A Redis by its URL, of which no error shows anything."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from taprail_gateway.push_settings import PushSettings


@pytest.mark.parametrize(
    "url", ["http://s3cret@host", "redis://:s3cret/x@host:6379", "redis://", "unix:", "s3cret"]
)
def test_a_url_that_cannot_be_used_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        PushSettings(redis_url=SecretStr(url))
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["redis://host", "rediss://u:p%2F@host:6380/1", "unix:///run/redis/redis.sock"]
)
def test_a_server_is_named(url: str) -> None:
    settings = PushSettings(redis_url=SecretStr(url))
    assert url not in repr(settings)
