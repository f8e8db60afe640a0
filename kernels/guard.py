"""Complaints about what a caller passed: what was got, what is legal, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the caller passed cannot be used; the text says what, and what would do."""


class UsageError(InputError):
    """The request itself names something that does not exist (command line: exit code 2)."""


def require(condition: bool, complaint: str) -> None:
    """Raise InputError with ``complaint`` unless the condition holds."""
    if not condition:
        raise InputError(complaint)


def unknown(what: str, got: str, legal: Iterable[str]) -> UsageError:
    """A UsageError for a name that does not exist, with the nearest one that does."""
    names = sorted(legal)
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UsageError(f"unknown {what} {got!r}; {hint}legal: {', '.join(names)}")
