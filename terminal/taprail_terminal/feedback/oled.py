"""The display: an SSD1306 of 128 by 64 pixels, through luma.oled.

Answers for getting a picture onto the glass, and for starting the controller anew after a failure:
an SSD1306 that lost power forgets its set-up and stays dark.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from luma.core.error import Error as LumaError
from luma.oled.device import ssd1306
from PIL import Image

from taprail_common.errors import OperatorError, PartError
from taprail_terminal.feedback.scene import Screen
from taprail_terminal.feedback.screens import render

SerialFactory: TypeAlias = Callable[[], Any]
"""Makes what luma calls a serial interface: an object with `command`, `data` and `cleanup`."""

DEFAULT_I2C_PORT: Final = 1
DEFAULT_I2C_ADDRESS: Final = 0x3C
"""SSD1306 data sheet, section 8.1.5: 0x3C with SA0 low, as nearly every module is wired."""

_FIX: Final = "check the display's four wires and its address with `i2cdetect -y 1`"


def i2c_serial(port: int, address: int) -> SerialFactory:
    """The real thing: I2C by the kernel's /dev/i2c-<port>."""

    def open_bus() -> Any:
        from luma.core.interface.serial import i2c

        return i2c(port=port, address=address)

    return open_bus


def packed(picture: Image.Image) -> bytes:
    """A picture of mode "1" in the order of the controller's RAM.

    SSD1306 data sheet, sections 8.7 and 10.1.3: page after page of eight rows, in a page column
    after column, in a column's byte the top pixel lowest.
    """
    pages = picture.height // 8
    # On its side each column is a row of bits, whose every byte belongs to another page.
    columns = picture.transpose(Image.Transpose.TRANSPOSE).tobytes("raw", "1;R")
    return b"".join(columns[page::pages] for page in range(pages))


class _Ssd1306(ssd1306):  # type: ignore[misc]  # luma ships no types
    """Luma's driver, but for its way of packing a picture: a Python loop over all pixels, which
    takes a small Pi tens of milliseconds between a verdict and its showing."""

    def display(self, image: Image.Image) -> None:
        """Send the whole picture."""
        self.command(
            self._const.COLUMNADDR, 0, self.width - 1, self._const.PAGEADDR, 0, self.height // 8 - 1
        )
        self.data(list(packed(image)))


class OledDisplay:
    """Draws screens; opened once at start, and opened again after a failure."""

    name = "display"

    def __init__(self, open_serial: SerialFactory) -> None:
        """Set the controller up; raises OperatorError when it does not answer."""
        self._open_serial = open_serial
        self._device: Any = None
        self._shown: Screen | None = None
        try:
            self._open()
        except PartError as exc:
            raise OperatorError(
                str(exc), fix='or set [display] driver = "none" to go without one'
            ) from exc

    def play(self, order: Screen, elapsed_ms: int) -> None:  # noqa: ARG002 - a still picture
        """Show the screen unless it is on the glass already."""
        if order == self._shown:
            return
        self._shown = None
        if self._device is None:
            self._open()
        try:
            self._device.display(render(order))
        except (LumaError, OSError) as exc:
            self._device = None
            raise PartError(self.name, str(exc), fix=_FIX) from exc
        self._shown = order

    def close(self) -> None:
        """Dark, bus given back."""
        if self._device is None:
            return
        try:
            self._device.cleanup()
        except (LumaError, OSError) as exc:
            raise PartError(self.name, str(exc), fix=_FIX) from exc
        finally:
            self._device = None

    def _open(self) -> None:
        try:
            self._device = _Ssd1306(self._open_serial())
        except (LumaError, OSError) as exc:
            raise PartError(self.name, str(exc), fix=_FIX) from exc
