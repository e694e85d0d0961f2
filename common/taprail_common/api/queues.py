"""How queues and sockets are doing."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AliasChoices, Field

from taprail_common.api.base import Answer, Part, Time
from taprail_common.payment_state import PaymentState


class Health(StrEnum):
    """`stopped`: nobody works on it, by configuration or by an operator's will."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    STOPPED = "stopped"


class QueuePart(Part):
    """One queue; `completed` and `failed` are of the window, `perMinute` of the last minute."""

    status: Health
    waiting: int
    active: int
    completed: int
    failed: int
    delayed: int
    oldest_seconds: Annotated[
        float | None, Field(validation_alias=AliasChoices("oldestSeconds", "oldest_s"))
    ]
    per_minute: int


class Queues(Part):
    """All queues, by name."""

    payment: QueuePart
    mint: QueuePart
    notification: QueuePart
    webhook: QueuePart
    cache: QueuePart


class QueueStatus(Answer):
    """How the queues are doing."""

    queues: Queues
    states: Annotated[
        dict[PaymentState, int],
        Field(description="Payments; `completed` and `failed` are those of the window."),
    ]
    window_seconds: int
    avg_seconds: Annotated[
        float | None, Field(description="From acceptance to completion; null: none was completed.")
    ]
    per_second: Annotated[float, Field(description="Payments completed, over the last minute.")]
    failures_by_reason: dict[str, int]
    cache_hit_rate: Annotated[
        float | None,
        Field(description="Of what this gateway looked up in memory lately; null: nothing."),
    ] = None
    timestamp: Time


class Websocket(Part):
    """Who listens at this gateway."""

    status: Literal["active", "inactive"]
    total_connections: int
    unique_users: int
    connected_users: Annotated[
        list[str], Field(description="The caller's own id; all of them for operators.")
    ]
    timestamp: Time


class WebsocketStatus(Answer):
    """How the push is doing."""

    websocket: Websocket
