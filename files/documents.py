"""Structured files from outside: JSON and TOML, read once, bounded and checked against a schema.

A schema is any type that pydantic understands (a dataclass, a TypedDict, ``dict[str, float]``).
Types are checked strictly: the text ``"512"`` is no number. Unknown keys are ignored, as a model's
config.json has many; a dataclass with ``__pydantic_config__ = NO_OTHER_KEYS`` refuses them.
Whatever is wrong with a file ends in an ``InputError`` that names the file, the field, what was
found and what is legal.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, to_json

from xtremely.kernels.guard import InputError, require

Schema = TypeVar("Schema")

NO_OTHER_KEYS = ConfigDict(extra="forbid")
MAX_BYTES = 2**31
MAX_DEPTH = 64  # tables and lists inside each other
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 80  # characters of a wrong value that a complaint repeats


def read_json(path: Path, schema: type[Schema], max_bytes: int = MAX_BYTES) -> Schema:
    """The value in a JSON file.

    Args:
        path: the file, UTF-8 with or without a byte-order mark.
        schema: the type of the value.
        max_bytes: a larger file is refused.

    Raises:
        InputError: the file cannot be read, is not JSON, repeats a key, or does not fit the schema.
    """
    return parse_json(read_text(path, max_bytes), schema, str(path))


def parse_json(text: str, schema: type[Schema], where: str, first_line: int = 1) -> Schema:
    """The value in a JSON text; see ``read_json``.

    Args:
        text: the JSON.
        schema: the type of the value.
        where: what a complaint calls the text, usually its file.
        first_line: the line of the file at which the text starts.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(pairs, where),
            parse_float=lambda text: _finite(text, where),
            parse_constant=lambda name: _not_finite(name, where),
        )
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}:{first_line + error.lineno - 1}: broken JSON ({error.msg}, column"
            f" {error.colno})"
        ) from error
    except RecursionError as error:
        raise InputError(f"{where}: nested too deeply; legal: {MAX_DEPTH} levels") from error
    except InputError:
        raise
    except ValueError as error:  # an integer with more digits than Python reads
        raise InputError(f"{where}: a number is too long ({error})") from error
    check_value(value, where)
    return _fitting(value, schema, where)


def read_toml(path: Path, schema: type[Schema], max_bytes: int = 2**24) -> Schema:
    """The value in a TOML file; complaints name the line of the field where it is found.

    Raises:
        InputError: the file cannot be read, is not TOML, or does not fit the schema.
    """
    return parse_toml(read_text(path, max_bytes), schema, str(path))


def parse_toml(text: str, schema: type[Schema], where: str) -> Schema:
    """The value in a TOML text; see ``read_toml``.

    Args:
        text: the TOML.
        schema: the type of the value.
        where: what a complaint calls the text, usually its file.
    """
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: not TOML ({error})") from error
    except RecursionError as error:
        raise InputError(f"{where}: nested too deeply; legal: {MAX_DEPTH} levels") from error
    except ValueError as error:  # an integer with more digits than Python reads
        raise InputError(f"{where}: a number is too long ({error})") from error
    check_value(value, where)
    return _fitting(value, schema, where, text)


def fit(value: Any, schema: type[Schema], where: str) -> Schema:
    """A value that was already parsed, checked like a file's.

    Raises:
        InputError: it does not fit the schema, is nested too deeply or holds broken text.
    """
    check_value(value, where)
    return _fitting(value, schema, where)


def check_value(value: Any, where: str, depth: int = 0) -> None:
    """Raise InputError for deep nesting and for text with a lone surrogate."""
    require(depth <= MAX_DEPTH, f"{where}: nested too deeply; legal: {MAX_DEPTH} levels")
    if isinstance(value, str):
        found = _SURROGATE.search(value)
        require(
            found is None,
            f"{where}: a text holds half a character (the lone surrogate"
            f" \\u{ord(found[0]) if found else 0:04x}) in {_shown(value)}; write the whole one",
        )
    elif isinstance(value, dict):
        for key, one in value.items():
            check_value(key, where, depth)
            check_value(one, where, depth + 1)
    elif isinstance(value, list):
        for one in value:
            check_value(one, where, depth + 1)


def line_of(text: str, location: tuple[str | int, ...]) -> int | None:
    """The line of a TOML text at which a field stands, None where it cannot be told.

    Args:
        text: the TOML.
        location: table names, list positions and last the key, as pydantic gives them.
    """
    keys = [part for part in location if isinstance(part, str)]
    if not keys:
        return None
    seen: dict[str, int] = {}
    table: tuple[str | int, ...] = ()
    best = None
    for number, line in enumerate(text.split("\n"), start=1):
        header = re.match(r"\s*(\[\[?)\s*([\w.\"'-]+)\s*\]", line)
        if header:
            name = header[2].replace('"', "").replace("'", "")
            if header[1] == "[[":
                seen[name] = seen.get(name, -1) + 1
                seen = {k: n for k, n in seen.items() if not k.startswith(f"{name}.")}
            parts = name.split(".")
            table = ()
            for count in range(1, len(parts) + 1):
                whole = ".".join(parts[:count])
                table += (parts[count - 1], seen[whole]) if whole in seen else (parts[count - 1],)
            if table == location[: len(table)]:
                best = number
        elif table == location[: len(table)]:
            rest = [part for part in location[len(table) :] if isinstance(part, str)]
            if rest and re.match(rf"\s*[\"']?{re.escape(rest[0])}[\"']?\s*[=.]", line):
                return number
    return best


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """A UTF-8 text file of bounded size, without its byte-order mark.

    Raises:
        InputError: it cannot be read, is too large or not UTF-8, with the line.
    """
    try:
        size = path.stat().st_size
        require(
            size <= max_bytes,
            f"{path}: {size:,} bytes; a file of this kind has at most {max_bytes:,}",
        )
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}); convert the file to UTF-8"
        ) from error


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """A JSON object; plain JSON would silently take the last of equal keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{where}: {twice!r} occurs twice in one object")
    return found


def _finite(text: str, where: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _not_finite(text, where)


def _not_finite(name: str, where: str) -> NoReturn:
    raise InputError(f"{where}: the number {name} is not finite; legal: finite numbers")


def _fitting(value: Any, schema: type[Schema], where: str, toml: str = "") -> Schema:
    if schema is object or schema is Any:
        return value
    try:
        # By way of JSON, since only there a strict tuple takes a list.
        return _adapter(schema).validate_json(to_json(value), strict=True)
    except ValidationError as error:
        # The fault of the last member of a union is the one that says most.
        raise InputError(_complaint(error.errors(include_url=False)[0], where, toml)) from error


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def _complaint(error: ErrorDetails, where: str, toml: str) -> str:
    location = error["loc"]
    line = line_of(toml, location) if toml else None
    field = ""
    for part in location:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else part
    start = f"{where}:{line}: " if line else f"{where}: "
    if error["type"] == "missing":
        return f"{start}{field!r} is missing"
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{start}unknown key {field!r}"
    legal = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    named = f"{field!r}" if field else "the file's value"
    return f"{start}{named} is {_shown(error['input'])}; legal: {legal}"


def _shown(value: Any) -> str:
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
