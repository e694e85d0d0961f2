"""What a terminal shows that cannot start before a person has put something right.

Answers for the front and for what systemd is told, while nothing else is there. Without systemd, a
person at a keyboard is told at once and by the error alone.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from taprail_common.errors import OperatorError, TapRailError
from taprail_common.service import SERVICE_MANAGER, ServiceManager
from taprail_terminal.config import DisplayTable, LightsTable
from taprail_terminal.feedback.drivers import Signals, open_display, open_signals
from taprail_terminal.feedback.feedback import Feedback
from taprail_terminal.feedback.messages import CATALOGUES, SERVICE_NEEDED
from taprail_terminal.sale import Phase, View

SHOWN_S: Final = 15.0
"""Before the next try: shorter than a watchdog's limit, long enough to cost a Pi nothing."""

T = TypeVar("T", bound=BaseModel)


@contextmanager
def shown_when_it_fails(
    config_file: Path, manager: ServiceManager = SERVICE_MANAGER, shown_s: float = SHOWN_S
) -> Iterator[None]:
    """Under systemd, show for a while that service is needed, and only then pass the error on."""
    try:
        yield
    except TapRailError as exc:
        if manager.address is not None:
            manager.status(f"Service needed: {exc}")
            _show(*front_of(config_file), shown_s)
        raise


def front_of(config_file: Path) -> tuple[LightsTable, DisplayTable]:
    """Where lights and display are: as far as the file holds, else where they are by default."""
    tables: dict[str, Any] = {}
    with suppress(OSError, ValueError):  # which also means: is not TOML
        tables = tomllib.loads(config_file.read_text())
    return _table(LightsTable, tables.get("lights")), _table(DisplayTable, tables.get("display"))


def _table(model: type[T], content: object) -> T:
    try:
        return model.model_validate({} if content is None else content)
    except ValidationError:
        return model()


def _show(lights: LightsTable, display: DisplayTable, shown_s: float) -> None:
    signals, screen = Signals(lights=None, buzzer=None), None
    with suppress(OperatorError):  # a part that is not there shows nothing, and hides no error
        signals = open_signals(lights.driver, lights.pins, None)
    with suppress(OperatorError):
        screen = open_display(display.driver, display.i2c_port, display.i2c_address)
    front = Feedback(signals, screen, words=CATALOGUES[display.language])
    try:
        front.show(_VIEW)
        time.sleep(shown_s)
    finally:
        front.close()


_VIEW: Final = View(
    phase=Phase.OUT_OF_SERVICE,
    amount_units=None,
    currency="",
    decimals=0,
    card_present=False,
    reason=SERVICE_NEEDED,
)
