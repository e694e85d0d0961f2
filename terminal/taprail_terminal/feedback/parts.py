"""What a part of the machine says of itself.

Answers for the form of a part's health, which the self-test and the status share. It looks at no
part itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from taprail_common.errors import PartError


@dataclass(frozen=True, slots=True)
class PartHealth:
    """One part as it was last seen; `fix` is what a person can do, empty when all is well."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def healthy(name: str, detail: str = "works") -> PartHealth:
    """A part that did what it was last asked to do."""
    return PartHealth(name, ok=True, detail=detail)


def not_fitted(name: str) -> PartHealth:
    """A part that the configuration says is not there; that is no fault."""
    return PartHealth(name, ok=True, detail="not fitted (driver none)")


def broken(error: PartError) -> PartHealth:
    """A part that failed at what it was last asked to do."""
    return PartHealth(error.part, ok=False, detail=error.message, fix=error.fix)
