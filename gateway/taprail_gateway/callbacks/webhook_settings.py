"""`[webhooks]`: whether merchants' servers are told, and which of them may be in our network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taprail_common.config import Settings

Host = Annotated[str, Field(pattern=r"^[a-z0-9._:\[\]-]{1,253}$")]


class WebhookSettings(Settings):
    """Off unless switched on."""

    enabled: bool = False
    allowed_hosts: tuple[Host, ...] = Field(default=(), max_length=50)
    """Hosts, by name and in lower case, that may be told though they are not on the public
    internet, and by plain http as well."""
