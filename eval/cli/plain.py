"""Text from outside, made fit for one line of a terminal."""

from __future__ import annotations

import unicodedata


def plain(text: object) -> str:
    """A text in one line: line ends as spaces, other control characters as escapes."""
    joined = " ".join(str(text).splitlines())
    return "".join(
        ascii(character)[1:-1] if unicodedata.category(character) == "Cc" else character
        for character in joined
    )
