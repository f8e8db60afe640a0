import sys
import unicodedata

import pytest

from xtremely.files.text import is_blank

# By the standard: all of White_Space, and what Default_Ignorable_Code_Point or a blank glyph hides.
SPACES = "\t\n\v\f\r\x1c\x1f \x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"
ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\xad\u061c\u180e\u200e\u202e\u2066\u034f\u115f\u3164"
EMPTY = "\u2800\ufe0f\U000e0020\U000e0100\x00\x7f"


@pytest.mark.parametrize("text", ["", *SPACES, *ZERO_WIDTH, *EMPTY, SPACES + ZERO_WIDTH + EMPTY])
def test_what_cannot_be_seen_is_blank(text):
    assert is_blank(text)


@pytest.mark.parametrize(
    "text", ["a", ".", "\u200b.", "  \u3042 ", "\u0301", "\U0001f600", "\ufffd"]
)
def test_what_can_be_seen_is_not_blank(text):
    assert not is_blank(text)


def test_everything_that_python_strips_is_blank():
    spaces = [character for character in map(chr, range(sys.maxunicode + 1)) if character.isspace()]
    assert len(spaces) >= 25 and is_blank("".join(spaces))
    letters = [c for c in map(chr, range(0x3000)) if unicodedata.category(c) in ("Lu", "Ll", "Nd")]
    assert not any(map(is_blank, letters))
