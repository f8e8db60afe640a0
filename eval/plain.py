"""One-line messages for a terminal: untrusted text without control characters, and warnings."""

from __future__ import annotations

import re
import unicodedata
import warnings

import typer

_LONG = re.compile(r"(\S{100})\S{100,}(\S{40})")  # a long path keeps its beginning and its end


def plain(text: object) -> str:
    """A text on one line: line breaks become spaces, other control characters escapes."""
    joined = " ".join(str(text).splitlines())
    return "".join(
        ascii(character)[1:-1] if unicodedata.category(character) == "Cc" else character
        for character in joined
    )


def say(what: str, colour: str, message: object) -> None:
    """Print one line on standard error, without rich, which a training machine may lack."""
    typer.echo(f"{typer.style(what, fg=colour)} {shortened(plain(message))}", err=True)


def warn_in_notes() -> None:
    """Show the warnings of this process as one plain line each, on standard error."""

    def show(message, category, filename, lineno, file=None, line=None):  # noqa: ANN001
        if category is not DeprecationWarning and category is not FutureWarning:
            say("note:", "yellow", message)

    warnings.showwarning = show


def shortened(text: str) -> str:
    """A text with the middle of very long words, such as paths and model names, left out."""
    return _LONG.sub(r"\1...\2", text)
