"""Every error that TapRail raises on purpose, under one root.

The family says whose fault it is, `code` is stable and machine-readable, `fix` tells a person what
to do next, and `retryable` tells a program whether the same call may succeed later.
"""

from __future__ import annotations

from collections.abc import Sequence


class TapRailError(Exception):
    """Root of all errors; `str()` is one line for people."""

    code = "internal"
    retryable = False

    def __init__(self, message: str, *, fix: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}: {self.fix}" if self.fix else self.message


class OperatorError(TapRailError):
    """Something that a person has to put right: a missing key, a port in use, a wrong path."""

    code = "operator"


class ConfigError(OperatorError):
    """The configuration does not hold; lists every problem at once."""

    code = "config"

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        listed = "; ".join(problems)
        super().__init__(f"configuration {source} does not hold: {listed}")
        self.problems = tuple(problems)


class InputError(TapRailError):
    """A message from outside is malformed; `field` names the part of it."""

    code = "bad_request"

    def __init__(self, field: str, message: str, *, code: str | None = None) -> None:
        super().__init__(f"{field}: {message}", code=code)
        self.field = field


class SignatureError(TapRailError):
    """A signature is missing or not by the key that it should be by."""

    code = "bad_signature"


class LinkError(TapRailError):
    """The other end did not answer, or not in its protocol. The outcome is unknown, never a no."""

    code = "link"
    retryable = True


class PartError(TapRailError):
    """A part of the machine (reader, display, disk …) failed; `part` names it."""

    code = "part"
    retryable = True

    def __init__(self, part: str, message: str, *, fix: str = "", code: str | None = None) -> None:
        super().__init__(f"{part}: {message}", fix=fix, code=code)
        self.part = part


class IllegalTransitionError(TapRailError):
    """A state machine was asked for a step that its table does not have. A bug of ours."""

    code = "illegal_transition"
