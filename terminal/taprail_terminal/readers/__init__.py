"""Card readers by name. A driver's module is imported only when it is the one that is used."""

from __future__ import annotations

import importlib
from typing import Final

from taprail_common.errors import OperatorError
from taprail_terminal.readers.base import Driver

# name in the configuration -> module, class and the extra that brings its library; the class takes
# the port as its only argument.
_DRIVERS: Final[dict[str, tuple[str, str, str]]] = {
    "pn532": ("taprail_terminal.readers.pn532", "Pn532Driver", "terminal"),
    "pcsc": ("taprail_terminal.readers.pcsc", "PcscDriver", "pcsc"),
}

DRIVER_NAMES: Final = frozenset(_DRIVERS)
"""What a configuration may name."""


def make_driver(name: str, port: str) -> Driver:
    """The named driver for a port. Raises OperatorError for a name or package that is not there."""
    if name not in _DRIVERS:
        raise OperatorError(
            f"no reader driver {name!r}", fix=f"set [reader] driver to: {', '.join(_DRIVERS)}"
        )
    module, class_name, extra = _DRIVERS[name]
    try:
        driver_class: type[Driver] = getattr(importlib.import_module(module), class_name)
    except ModuleNotFoundError as exc:
        raise OperatorError(
            f"reader driver {name!r} needs the package {exc.name}",
            fix=f"pip install 'taprail[{extra}]'",
        ) from exc
    return driver_class(port)  # type: ignore[call-arg]  # the table says what the class takes
