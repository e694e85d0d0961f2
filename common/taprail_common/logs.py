"""Log plumbing: one line an event, JSON for machines or colour for people, and no secret in it.

Where the stream is the journal's, each line begins with its priority, as sd-daemon(3) says, so that
`journalctl -p warning` finds what it should.

Values under a name that means a secret are dropped, and so is anything that looks like a private
key or a token, wherever it stands: a log is the first thing that is sent around.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from taprail_common.service import SERVICE_MANAGER, ServiceManager

_SECRET_NAMES: Final = frozenset(
    {"key", "pin", "token", "jwt", "secret", "password", "uid", "authorization", "private_key"}
)
# A bearer token (three base64url parts, RFC 7519) or a raw 32-byte key without the 0x that marks
# transaction hashes and payment ids, which are public.
_SECRET_TEXT: Final = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}|(?<![0-9a-zA-Z])[0-9a-fA-F]{64}(?![0-9a-zA-Z])"
)
_HIDDEN: Final = "[hidden]"

_PRIORITIES: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""Of syslog(3); what has no level is information."""
_INFO: Final = 6


def configure_logs(
    *,
    json: bool,
    level: str = "info",
    stream: TextIO | None = None,
    manager: ServiceManager = SERVICE_MANAGER,
) -> None:
    """Send structlog and the standard library's loggers to one stream (stderr)."""
    out = stream or sys.stderr
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=out.isatty(),
            # The default shows every local variable of every frame: keys, UIDs, tokens.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    if manager.is_journal(out):
        renderer = _Prioritized(renderer)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Errors become text before secrets are hidden, because their words may hold some.
    finish: list[Any] = [structlog.processors.format_exc_info, hide_secrets, renderer]
    structlog.configure(
        processors=[*shared, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(_level(level)),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *finish,
            ],
        )
    )
    # Libraries speak only when something is wrong; their debug lines hold frames and keys.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def hide_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """structlog processor: hide what must not be in a log."""
    for name, value in event.items():
        event[name] = _HIDDEN if name.lower() in _SECRET_NAMES else _clean(value)
    return event


def _clean(value: object) -> object:
    if isinstance(value, str):
        return _SECRET_TEXT.sub(_HIDDEN, value)
    if isinstance(value, dict):
        return {
            k: _HIDDEN if str(k).lower() in _SECRET_NAMES else _clean(v) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


class _Prioritized:
    """Renders an event behind its priority; the journal takes it off again."""

    def __init__(self, render: Any) -> None:
        self._render = render

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> str:
        priority = _PRIORITIES.get(str(event.get("level")), _INFO)
        return f"<{priority}>{self._render(logger, method, event)}"


def _level(name: str) -> int:
    return logging.getLevelNamesMapping().get(name.upper(), logging.INFO)
