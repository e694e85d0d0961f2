"""Settings of terminals that may be changed from afar: their names, and the messages about them.

Answers for which settings a gateway may push. Never among them: who the terminal is, whom it
trusts, and where its keys and the records of its money lie. What a value may be, the terminal alone
knows; it checks its whole configuration before it takes any of it.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal

from pydantic import Field, StrictBool, StrictInt

from taprail_common.api.base import Request, Time, Told
from taprail_common.wire import MAX_SENTENCE, Identifier, Timestamp, Word

CONFIG_PATH: Final = "/api/terminals/config"
"""GET gives what is wanted, POST takes what came of it."""
CONFIG_EVENT: Final = "terminal:config"

CHANGEABLE: Final = (
    "terminal.gateway_url",
    "terminal.mode",
    "terminal.fixed_amount",
    "terminal.verdict_timeout_ms",
    "reader.driver",
    "reader.port",
    "reader.reset_pin",
    "lights.driver",
    "lights.pins",
    "lights.buzzer_pin",
    "display.driver",
    "display.language",
    "display.i2c_port",
    "display.i2c_address",
    "keypad.device",
    "console.port",
    "log.level",
    "log.json_lines",
)

MAX_VALUE: Final = 200
MAX_SETTINGS: Final = 40
MAX_VERSION: Final = 2**31 - 1

SettingName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}\.[a-z0-9_]{1,40}$")]
SettingText = Annotated[str, Field(max_length=MAX_VALUE)]
SettingList = Annotated[
    tuple[StrictBool | StrictInt | SettingText | None, ...], Field(max_length=16, strict=False)
]
SettingValue = StrictBool | StrictInt | SettingText | SettingList | None
"""None: left out of the file, so that the terminal's default holds."""
SettingValues = Annotated[dict[SettingName, SettingValue], Field(max_length=MAX_SETTINGS)]
Reason = Annotated[str, Field(max_length=MAX_SENTENCE, pattern=r"^[ -~]*$")]
"""Plain ASCII, as the console answers."""
Version = Annotated[int, Field(ge=0, le=MAX_VERSION)]


class PushedConfig(Told):
    """All that the gateway wants of one terminal's settings, signed to be carried out."""

    terminal_id: Identifier
    version: Annotated[int, Field(gt=0, le=MAX_VERSION)]
    settings: SettingValues
    set_at: Time

    def to_json(self) -> bytes:
        """The message's bytes as they are signed and sent; they are ASCII."""
        return json.dumps(self.model_dump(mode="json", by_alias=True)).encode()


class ConfigReport(Request):
    """What came of the version that was wanted, and the settings that run."""

    terminal_id: Identifier
    at: Timestamp
    version: Version
    outcome: Literal["applied", "refused"] | None = None
    """None where nothing was ever wanted."""
    reason: Reason | None = None
    applied_version: Version
    settings: SettingValues


class ConfigNoted(Told):
    """The gateway's signed answer: it has the report."""

    terminal_id: Word
    version: int


class ConfigCalled(Told):
    """A command: there is another configuration to be fetched."""

    terminal_id: Identifier
    version: Version
