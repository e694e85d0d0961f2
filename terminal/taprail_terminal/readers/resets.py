"""Takes a reader's power, or the next best, and gives it back: by its reset pin or by its USB port.

Thin edges only; when it is done is the supervisor's matter. Each may block: the caller bounds it.
Sources: linux/usbdevice_fs.h (USBDEVFS_RESET); NXP PN532/C1 data sheet clause 8.9 (RSTPDN).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from taprail_common.errors import PartError

_USBDEVFS_RESET: Final = 0x5514  # _IO('U', 20)
_PIN_LOW_S: Final = 0.1
"""The data sheet asks for 20 ns and then 2 ms; a capacitor at the pin wants far more."""


def reset_for(port: str, pin: int | None = None) -> Callable[[], None] | None:
    """How to reset a reader: by its pin, else by the USB device behind its serial port; None: not
    at all, as one that pcscd holds."""
    if pin is not None:
        return lambda: pin_reset(pin)
    if not port.startswith("/dev/"):
        return None
    return lambda: usb_reset(port)


def usb_reset(port: str, sys_folder: Path = Path("/sys"), dev: Path = Path("/dev")) -> None:
    """Reset the USB device behind a serial port. Raises PartError where there is none."""
    device = _usb_device(port, sys_folder)
    try:
        bus, number = (int((device / name).read_text()) for name in ("busnum", "devnum"))
        handle = os.open(dev / f"bus/usb/{bus:03}/{number:03}", os.O_WRONLY)
        try:
            fcntl.ioctl(handle, _USBDEVFS_RESET, 0)
        finally:
            os.close(handle)
    except (OSError, ValueError) as exc:
        raise PartError("reader", f"its USB port cannot be reset ({exc})") from exc


def _usb_device(port: str, sys_folder: Path) -> Path:
    name = Path(os.path.realpath(port)).name
    interface = (sys_folder / "class/tty" / name / "device").resolve()
    for folder in (interface, *interface.parents):
        if (folder / "busnum").exists() and (folder / "devnum").exists():
            return folder
    raise PartError("reader", "is not behind a USB port, so nothing can reset it")


def pin_reset(pin: int, factory: Any = None) -> None:
    """Pull the chip's reset pin (active low) for a moment."""
    import gpiozero

    with gpiozero.DigitalOutputDevice(
        pin, active_high=False, initial_value=True, pin_factory=factory
    ):
        time.sleep(_PIN_LOW_S)
