"""Text from outside, made fit for one line of a terminal; complaints and warnings in one line."""

from __future__ import annotations

import re
import unicodedata
import warnings

import typer

_LONG = re.compile(r"(\S{100})\S{100,}(\S{40})")  # a path may be long, and what it leads to stay


def plain(text: object) -> str:
    """A text in one line: line ends as spaces, other control characters as escapes."""
    joined = " ".join(str(text).splitlines())
    return "".join(
        ascii(character)[1:-1] if unicodedata.category(character) == "Cc" else character
        for character in joined
    )


def say(what: str, colour: str, message: object) -> None:
    """One line on standard error; needs no rich, which a machine that only trains may lack."""
    typer.echo(f"{typer.style(what, fg=colour)} {shortened(plain(message))}", err=True)


def warn_in_notes() -> None:
    """Show the warnings of this process as one plain line each, on standard error."""

    def show(message, category, filename, lineno, file=None, line=None):  # noqa: ANN001
        if category is not DeprecationWarning and category is not FutureWarning:
            say("note:", "yellow", message)

    warnings.showwarning = show


def shortened(text: str) -> str:
    """A text whose longest words, such as paths and names of models, have lost their middles."""
    return _LONG.sub(r"\1...\2", text)
