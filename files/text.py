"""Recognises blank text: text of invisible Unicode characters only."""

from __future__ import annotations

import unicodedata

# Control and format characters (zero-width ones, the byte-order mark) and all spaces and
# separators, by category. Then letters, marks and symbols that are drawn as nothing: the grapheme
# joiner, Hangul fillers, Khmer's inherent vowels, variation selectors and the empty Braille cell.
_UNSEEN = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))
_FILLERS = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
)


def is_blank(text: str) -> bool:
    """Whether a text has no visible character: it is empty, or holds only spaces, control
    characters and zero-width characters of Unicode.
    """
    return all(
        unicodedata.category(character) in _UNSEEN or character in _FILLERS for character in text
    )
