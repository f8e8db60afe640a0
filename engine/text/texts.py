"""Checks the texts that are passed to the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from xtremely.kernels.guard import InputError, require

SHOWN = 60  # characters of a text that an error message quotes


def checked(texts: Iterable[str], what: str = "texts") -> list[str]:
    """The texts as a list of plain strings; a generator is consumed.

    Args:
        texts: a list, a one-dimensional array, a generator or another ordered iterable.
        what: name of the texts in error messages.

    Raises:
        InputError: ``texts`` is a single string or has no order, or one text is not a string that
            can be encoded as UTF-8; the message counts texts from 1.
    """
    kind = type(texts).__name__
    require(
        not isinstance(texts, str | bytes | bytearray),
        f"{what} is one string ({kind}); pass a list of strings",
    )
    flat = getattr(texts, "ndim", 1) == 1
    require(
        isinstance(texts, Iterable) and not isinstance(texts, Mapping | Set) and flat,
        f"{what} is a {kind}{'' if flat else ' of several dimensions or none'}; pass a list of"
        " strings",
    )
    found = list(texts)
    for place, text in enumerate(found):
        if type(text) is not str:
            require(
                isinstance(text, str),
                f"text {place + 1} of {len(found)} is a {type(text).__name__}, expected a string",
            )
            found[place] = str(text)  # a subclass of str, such as numpy's
        if not text.isascii():
            _require_whole(text, place + 1, len(found))
    return found


def _require_whole(text: str, number: int, count: int) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"text {number} of {count} holds half a character (the lone surrogate"
            f" \\u{ord(text[error.start]):04x} at character {error.start + 1}): {shown(text)};"
            " write the whole character, or leave it out"
        ) from error


def shown(text: str) -> str:
    """The beginning of a text as error messages quote it, on one line."""
    start = text[:SHOWN] + ("..." if len(text) > SHOWN else "")
    return repr(start.encode("utf-8", "backslashreplace").decode())
