"""Damage to valid files and options, as users and disks make it, for the fuzz tests."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

from hypothesis import strategies as st

# What stands where it should not: in a file's bytes, and in place of an option's value.
INSERTS = (
    *(b"\0", b"\r", b"\r\n", b"\n", b"\n\n", b"\t", b" ", b"\xff\xfe", b"\xef\xbb\xbf", b"\x80"),
    *("\u2028".encode(), "\u00a0".encode(), "\u200b".encode(), "e\u0301".encode(), b"\\ud83d"),
    *(b"[" * 3000, b"9" * 5000, b"nan", b"-1", b"1e999", b'""', b"null", b"{}", b"[]", b'"', b"#"),
    *(b"../../x", b"[/red]", b"true", b"a" * 20_000),
)
VALUES = (
    *("null", "true", "-1", "0", "1.5", "1e999", "9" * 5000, "10" + "0" * 30, '""', '"x"', "nan"),
    *("[]", "{}", "[" * 200 + "]" * 200, '"\\ud83d"', '"../../x"', "inf", '"nan"', "[null]"),
)
OPTIONS = ("", "nan", "inf", "-1", "0", "1e30", "9" * 400, "../x", "[/red]", "\udcff", "a" * 5000)
_SCALAR = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null')


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """A file's content after one fault."""
    places = st.integers(0, len(content))
    start, stop = sorted((draw(places), draw(places)))
    kind = draw(
        st.sampled_from(
            ("cut", "delete", "repeat", "insert", "flip", "value", "lines", "encoding", "empty")
        )
    )
    match kind:
        case "cut":
            return content[:start]
        case "delete":
            return content[:start] + content[stop:]
        case "repeat":
            return content[:stop] + content[start:]
        case "insert":
            return content[:start] + draw(st.sampled_from(INSERTS)) + content[start:]
        case "flip" if content:
            place = min(start, len(content) - 1)
            flipped = content[place] ^ 1 << draw(st.integers(0, 7))
            return content[:place] + bytes([flipped]) + content[place + 1 :]
        case "value":
            scalars = list(_SCALAR.finditer(content[:1_000_000]))
            if scalars:
                found = draw(st.sampled_from(scalars))
                value = draw(st.sampled_from(VALUES)).encode()
                return content[: found.start()] + value + content[found.end() :]
        case "lines":
            lines = content.splitlines(keepends=True)
            if len(lines) > 1:
                one, other = (
                    draw(st.integers(0, len(lines) - 1)),
                    draw(st.integers(0, len(lines) - 1)),
                )
                if draw(st.booleans()):
                    lines[one], lines[other] = lines[other], lines[one]
                else:
                    lines[one] = lines[other]
                return b"".join(lines)
        case "encoding":
            try:
                return content.decode().encode(draw(st.sampled_from(("utf-16", "utf-16-le"))))
            except UnicodeDecodeError:
                return content[::-1]
    return b"\0" * 100 if draw(st.booleans()) else b""


@st.composite
def damage_file(draw, files: list[Path]) -> str:
    """Do something to one of the files; says what."""
    path = draw(st.sampled_from(sorted(files)))
    kind = draw(st.sampled_from(("content",) * 12 + ("gone", "folder", "loop", "gzip")))
    content = path.read_bytes()
    if kind == "content":
        path.write_bytes(draw(damaged(content)))
    elif kind == "gzip":
        path.write_bytes(gzip.compress(content))
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path.name)
    return f"{path.name}: {kind}"


def fresh_copy(template: Path, target: Path) -> Path:
    """The template again, whatever was done to the copy before."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(template, target, symlinks=True)
    return target
