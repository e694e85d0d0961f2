"""The terminal's configuration: one frozen object, checked as a whole before anything starts.

[terminal]
id = "till-1"
merchant_id = "cafe"
currency = "USDC"
decimals = 6
state_dir = "/var/lib/taprail"
gateway_url = "https://gateway.example"
gateway_public_key = "64 hex digits"
mode = "fixed"              # or "till", armed by `taprail terminal arm`; or "keypad"
fixed_amount = "2.50"

[reader]
port = "/dev/serial0"

`id`, `merchant_id`, `currency`, `decimals` and `gateway_public_key` come from pairing where the
file leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from nacl.signing import VerifyKey
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
)

from taprail_common.config import Settings, load_settings, resolve
from taprail_common.errors import ConfigError, InputError, OperatorError
from taprail_common.ids import IDENTIFIER_PATTERN
from taprail_common.money import MAX_DECIMALS, parse_amount
from taprail_common.signing import parse_public_key
from taprail_terminal.feedback.drivers import DISPLAY_NAMES, SIGNALS_NAMES
from taprail_terminal.feedback.messages import Language
from taprail_terminal.paired import Place, kept, settings_of
from taprail_terminal.readers import DRIVER_NAMES
from taprail_terminal.tls_known import check_address
from taprail_terminal.trust import Trusted, trusted

CONTROL_SOCKET: Final = "control.sock"
_MAX_SOCKET_PATH: Final = 107
"""sun_path of unix(7) has 108 bytes with its end."""

Identifier = Annotated[str, Field(pattern=IDENTIFIER_PATTERN)]
Pin = Annotated[int, Field(ge=0, le=27)]
"""BCM numbers on the Raspberry Pi's header."""


def _one_of(names: Collection[str]) -> Callable[[str], str]:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"{name[:40]!r} is unknown; use one of: {', '.join(sorted(names))}")
        return name

    return check


class Mode(StrEnum):
    """Where amounts come from."""

    FIXED = "fixed"
    TILL = "till"
    KEYPAD = "keypad"


class TerminalTable(Settings):
    """[terminal]"""

    id: Identifier
    merchant_id: Identifier
    currency: Annotated[str, Field(pattern=r"^[A-Z0-9]{2,12}$")]
    decimals: Annotated[int, Field(ge=0, le=MAX_DECIMALS)]
    state_dir: Path
    key_file: Path | None = None
    gateway_url: str
    gateway_public_key: str
    mode: Mode = Mode.TILL
    fixed_amount: Annotated[str | None, Field(validate_default=True)] = None
    verdict_timeout_ms: Annotated[int, Field(ge=200, le=30_000)] = 3_000

    @field_validator("gateway_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            raise ValueError("must be like https://gateway.example")
        return url.rstrip("/")

    @field_validator("gateway_public_key")
    @classmethod
    def _is_key(cls, text: str) -> str:
        try:
            parse_public_key(text)
        except OperatorError as exc:
            raise ValueError(str(exc)) from exc
        return text

    @field_validator("fixed_amount")
    @classmethod
    def _is_price(cls, text: str | None, info: ValidationInfo) -> str | None:
        # What is wrong itself is missing here, and told under its own name.
        if "mode" in info.data and (info.data["mode"] is Mode.FIXED) != (text is not None):
            raise ValueError('belongs to mode = "fixed", and to no other')
        if text is not None and "decimals" in info.data:
            try:
                parse_amount(text, info.data["decimals"])
            except InputError as exc:
                raise ValueError(exc.message) from exc
        return text

    @field_validator("state_dir")
    @classmethod
    def _has_room_for_a_socket(cls, folder: Path) -> Path:
        if len(str(folder / CONTROL_SOCKET).encode()) > _MAX_SOCKET_PATH:
            raise ValueError(
                f"is too long for a socket: at most {_MAX_SOCKET_PATH - len(CONTROL_SOCKET) - 1}"
                " bytes"
            )
        return folder


class ReaderTable(Settings):
    """[reader]"""

    driver: Annotated[str, AfterValidator(_one_of(DRIVER_NAMES))] = "pn532"
    port: str = "/dev/serial0"
    reset_pin: Pin | None = None
    """What the chip's RSTPDN is wired to; without it, a reader on USB is reset through its port."""


class LightsTable(Settings):
    """[lights]: four EMV lights from left to right, red, amber, and a piezo."""

    driver: Annotated[str, AfterValidator(_one_of(SIGNALS_NAMES))] = "gpio"
    pins: tuple[Pin, Pin, Pin, Pin, Pin, Pin] = (5, 6, 13, 19, 26, 16)
    buzzer_pin: Annotated[Pin | None, Field(validate_default=True)] = 12

    @field_validator("buzzer_pin")
    @classmethod
    def _has_pins_of_their_own(cls, buzzer: int | None, info: ValidationInfo) -> int | None:
        pins = [*info.data.get("pins", ()), *([] if buzzer is None else [buzzer])]
        twice = sorted({pin for pin in pins if pins.count(pin) > 1})
        if twice:
            raise ValueError(f"two parts share a pin: {', '.join(map(str, twice))}")
        return buzzer


class DisplayTable(Settings):
    """[display]"""

    driver: Annotated[str, AfterValidator(_one_of(DISPLAY_NAMES))] = "ssd1306-i2c"
    language: Language = Language.ENGLISH
    """What customers are spoken to in: "en" or "vi"."""
    i2c_port: Annotated[int, Field(ge=0, le=255)] = 1
    i2c_address: Annotated[int, Field(ge=0x03, le=0x77)] = 0x3C


class KeypadTable(Settings):
    """[keypad]: where PINs, and with mode = "keypad" amounts, are typed; none without a device."""

    device: Path | None = None
    """Like /dev/input/by-id/usb-…-event-kbd, which stays the same when it is plugged in anew."""


class ConsoleTable(Settings):
    """[console]: the serial line for a field technician; none without a port."""

    port: str | None = None


class LogTable(Settings):
    """[log]"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    json_lines: bool = True


class TerminalConfig(Settings):
    """The whole file, with its paths made absolute."""

    terminal: TerminalTable
    reader: ReaderTable = ReaderTable()
    lights: LightsTable = LightsTable()
    display: DisplayTable = DisplayTable()
    keypad: Annotated[KeypadTable, Field(validate_default=True)] = KeypadTable()
    console: ConsoleTable = ConsoleTable()
    log: LogTable = LogTable()
    _source: Path | None = PrivateAttr(None)
    _trusted: Trusted | None = PrivateAttr(None)

    @field_validator("keypad")
    @classmethod
    def _has_keys_to_type_with(cls, keypad: KeypadTable, info: ValidationInfo) -> KeypadTable:
        terminal = info.data.get("terminal")
        if terminal is not None and terminal.mode is Mode.KEYPAD and keypad.device is None:
            raise ValueError('terminal.mode = "keypad" needs a device')
        return keypad

    @property
    def source(self) -> Path | None:
        """The file that it was read from."""
        return self._source

    @property
    def fixed_units(self) -> int | None:
        """The price in fixed-price mode."""
        text = self.terminal.fixed_amount
        return None if text is None else parse_amount(text, self.terminal.decimals)

    @property
    def given_key(self) -> VerifyKey:
        """The gateway's key as the file or pairing names it."""
        return parse_public_key(self.terminal.gateway_public_key)

    @property
    def trusted(self) -> Trusted:
        """The gateway's key of today, and the one before."""
        return self._trusted or Trusted(self.given_key)

    @property
    def gateway_key(self) -> VerifyKey:
        return self.trusted.current

    @property
    def key_file(self) -> Path:
        return self.terminal.key_file or self.terminal.state_dir / "device.key"

    @property
    def outbox_file(self) -> Path:
        return self.terminal.state_dir / "outbox.db"

    @property
    def device_file(self) -> Path:
        return self.terminal.state_dir / "device.json"

    @property
    def offline_file(self) -> Path:
        return self.terminal.state_dir / "offline.json"

    @property
    def control_socket(self) -> Path:
        return self.terminal.state_dir / CONTROL_SOCKET


class _Somewhere(BaseModel):
    """Where a terminal's state is and whom it asks, before it knows who it is."""

    model_config = ConfigDict(extra="ignore")

    state_dir: Path
    key_file: Path | None = None
    gateway_url: str = ""


class _Unpaired(Settings):
    """As much of the file as pairing needs."""

    model_config = ConfigDict(extra="ignore")

    terminal: _Somewhere


def place_of(path: Path, gateway_url: str | None = None) -> Place:
    """Where pairing puts what it gives, whether or not the rest of the file is complete."""
    flags = {"terminal.gateway_url": gateway_url}
    table = load_settings(_Unpaired, path, flags=flags).terminal
    state_dir = resolve(path, table.state_dir)
    key_file = state_dir / "device.key" if table.key_file is None else resolve(path, table.key_file)
    if urlsplit(table.gateway_url).scheme not in {"http", "https"}:
        raise OperatorError(
            "no gateway is named", fix="give --gateway-url, or set [terminal] gateway_url"
        )
    return Place(table.gateway_url.rstrip("/"), state_dir, key_file)


def _from_pairing(path: Path) -> dict[str, Any]:
    """What pairing said, where the file and the environment leave it out."""
    try:
        folder = load_settings(_Unpaired, path).terminal.state_dir
    except ConfigError:
        return {}  # all that is wrong with the file is told together, by its own name
    answer = kept(resolve(path, folder))
    return {} if answer is None else settings_of(answer)


def load_config(
    path: Path,
    *,
    flags: dict[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> TerminalConfig:
    """Read and check the configuration. Raises ConfigError with all problems, or OperatorError."""
    below = {**(defaults or {}), **_from_pairing(path)}
    config = load_settings(TerminalConfig, path, flags=flags, defaults=below)
    table = config.terminal
    absolute: dict[str, object] = {"state_dir": resolve(path, table.state_dir)}
    if table.key_file is not None:
        absolute["key_file"] = resolve(path, table.key_file)
    config = config.model_copy(update={"terminal": table.model_copy(update=absolute)})
    config._trusted = trusted(config.terminal.state_dir, config.given_key)
    check_address(table.gateway_url, config.terminal.state_dir)
    config._source = path  # a model sets its own private attributes, and this is its maker
    if len(str(config.control_socket).encode()) > _MAX_SOCKET_PATH:
        raise OperatorError(
            f"[terminal] state_dir {table.state_dir} is too long for a socket",
            fix=f"choose a path of at most {_MAX_SOCKET_PATH - len(CONTROL_SOCKET) - 1} bytes",
        )
    return config
