"""Reads JSON and TOML files, bounded in size and depth, and checks them against a schema.

A schema is any type that pydantic understands (a dataclass, a TypedDict, ``dict[str, float]``).
Types are checked strictly: the text ``"512"`` is not a number. Unknown keys are ignored, as a
model's config.json has many; a dataclass with ``__pydantic_config__ = NO_OTHER_KEYS`` refuses them.
Every fault of a file raises an ``InputError`` that names the file, the field, what was found and
what is legal.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, to_json

from xtremely.kernels.guard import InputError, require, unknown

Schema = TypeVar("Schema")
ANYTHING: Any = Any  # the schema that accepts every value unchanged

NO_OTHER_KEYS = ConfigDict(extra="forbid")
MAX_BYTES = 2**31
MAX_DEPTH = 64  # nesting depth of tables and lists
MAX_BITS = 14_000  # bits of an integer: Python converts at most 4,300 digits to text
TOO_LONG = "a number is too long; legal: at most 4,300 digits"
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 80  # characters of a wrong value that an error message quotes


def read_json(path: Path, schema: type[Schema], max_bytes: int = MAX_BYTES) -> Schema:
    """Read the value in a JSON file.

    Args:
        path: the file, UTF-8 with or without a byte-order mark.
        schema: the type of the value.
        max_bytes: a larger file is refused.

    Raises:
        InputError: the file cannot be read, is not JSON, repeats a key, or does not fit the schema.
    """
    return parse_json(read_text(path, max_bytes), schema, str(path))


def parse_json(text: str, schema: type[Schema], where: str, first_line: int | None = 1) -> Schema:
    """Parse the value in a JSON text; see ``read_json``.

    Args:
        text: the JSON.
        schema: the type of the value.
        where: name of the text in error messages, usually its file.
        first_line: the line of the file at which the text starts; None if ``where`` names it.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(pairs, where),
            parse_float=lambda text: _finite(text, where),
            parse_constant=lambda name: _not_finite(name, where),
        )
    except json.JSONDecodeError as error:
        line = "" if first_line is None else f":{first_line + error.lineno - 1}"
        raise InputError(
            f"{where}{line}: broken JSON ({error.msg}, column {error.colno})"
        ) from error
    except RecursionError as error:
        raise InputError(f"{where}: nested too deeply; legal: {MAX_DEPTH} levels") from error
    except InputError:
        raise
    except ValueError as error:  # an integer with more digits than Python reads
        raise InputError(f"{where}: {TOO_LONG}") from error
    check_value(value, where)
    return _fitting(value, schema, where)


def read_toml(path: Path, schema: type[Schema], max_bytes: int = 2**24) -> Schema:
    """Read the value in a TOML file; error messages name the field's line if it can be found.

    Raises:
        InputError: the file cannot be read, is not TOML, or does not fit the schema.
    """
    return parse_toml(read_text(path, max_bytes), schema, str(path))


def parse_toml(text: str, schema: type[Schema], where: str) -> Schema:
    """Parse the value in a TOML text; see ``read_toml``.

    Args:
        text: the TOML.
        schema: the type of the value.
        where: name of the text in error messages, usually its file.
    """
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: not TOML ({error})") from error
    except RecursionError as error:
        raise InputError(f"{where}: nested too deeply; legal: {MAX_DEPTH} levels") from error
    except ValueError as error:  # an integer with more digits than Python reads
        raise InputError(f"{where}: {TOO_LONG}") from error
    check_value(value, where)
    return _fitting(value, schema, where, text)


def fit(value: Any, schema: type[Schema], where: str, toml: str = "") -> Schema:
    """Check a parsed value against a schema, and convert it.

    Args:
        value: the value.
        schema: its type.
        where: name of the value in error messages.
        toml: the TOML text it came from, to find the line for error messages.

    Raises:
        InputError: it does not fit the schema, is nested too deeply or holds a lone surrogate.
    """
    check_value(value, where)
    return _fitting(value, schema, where, toml)


def check_value(value: Any, where: str) -> None:
    """Raise InputError, with the field, for deep nesting and for text with a lone surrogate."""
    fault = _fault(value, 0)
    if fault is not None:
        location, reason = fault
        field = _field(tuple(location))
        raise InputError(f"{where}: {field}{': ' if field else ''}{reason}")


def _fault(value: Any, depth: int) -> tuple[list[str | int], str] | None:
    """The location and description of the first fault in a value; None if there is none."""
    if isinstance(value, str):
        found = _SURROGATE.search(value)
        return found and (
            [],
            f"a text holds half a character (the lone surrogate \\u{ord(found[0]):04x}) in"
            f" {_shown(value)}; write the whole one",
        )
    if isinstance(value, int) and value.bit_length() > MAX_BITS:  # TOML's hexadecimal numbers
        return [], f"a number is too long ({value.bit_length():,} bits; legal: {MAX_BITS:,})"
    if value is None or isinstance(value, bool | int | float):
        return None
    if not isinstance(value, dict | list | tuple):
        return [], f"{_shown(value)} is a date or time; legal: texts and numbers"
    if depth > MAX_DEPTH:
        return [], f"nested too deeply; legal: {MAX_DEPTH} levels"
    named = value if isinstance(value, dict) else None
    for key, one in enumerate(value) if named is None else named.items():
        fault = (None if named is None else _fault(key, depth)) or _fault(one, depth + 1)
        if fault is not None:
            location, reason = fault
            name = None if named is None else named.get("id")
            if isinstance(name, str) and key != "id":
                reason += f" (id {_shown(name)})"
            return [key, *location], reason
    return None


def _field(location: tuple[str | int, ...]) -> str:
    """A location in a value as text, such as ``data[0].paragraphs[2].context``."""
    field = ""
    for part in location:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else part
    field = field.encode("utf-8", "backslashreplace").decode()
    return field if len(field) <= _SHOWN else field[: _SHOWN - 3] + "..."


def line_of(text: str, location: tuple[str | int, ...]) -> int | None:
    """The line of a field in a TOML text; None if it cannot be found.

    Args:
        text: the TOML.
        location: table names, list positions and finally the key, as from pydantic.
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


def place(where: str, toml: str, *location: str | int) -> str:
    """The beginning of an error message about a field: its file, and its line if it is found."""
    line = line_of(toml, location) if toml else None
    return f"{where}:{line}: " if line else f"{where}: " if where else ""


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Read a UTF-8 text file of at most ``max_bytes``, without its byte-order mark.

    Raises:
        InputError: it cannot be read, is too large, or is not UTF-8, with the line.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(max_bytes + 1) if size <= max_bytes else b""
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    require(  # the size of a pipe or device is unknown, and may be infinite
        max(size, len(data)) <= max_bytes,
        f"{path}: {max(size, len(data)):,} bytes; a file of this kind has at most {max_bytes:,}",
    )
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}); convert the file to UTF-8"
        ) from error


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """A JSON object; repeated keys are an error, while json would silently keep the last."""
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


def _fitting(value: Any, schema: Any, where: str, toml: str = "") -> Any:
    if schema is object or schema is Any:
        return value
    try:
        # Through JSON, because in strict mode only JSON input accepts a list for a tuple.
        return _adapter(schema).validate_json(to_json(value), strict=True)
    except ValidationError as error:
        # The error of a union's last member is the most specific.
        fault = error.errors(include_url=False)[0]
        raise InputError(_complaint(fault, value, schema, where, toml)) from error


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def _there(location: tuple[str | int, ...], value: Any, last: bool) -> tuple[str | int, ...]:
    """A location without the names that pydantic adds for members of a union.

    Args:
        location: the location from pydantic.
        value: the value that contains it.
        last: whether to keep its last part even if the value does not have it.
    """
    kept: list[str | int] = []
    for place, part in enumerate(location):
        named = isinstance(value, dict) and part in value
        numbered = isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        if named or numbered:
            value = value[part]
            kept.append(part)
        elif last and place + 1 == len(location):
            kept.append(part)
    return tuple(kept)


def _complaint(error: ErrorDetails, value: Any, schema: Any, where: str, toml: str) -> str:
    location = _there(error["loc"], value, error["type"] == "missing")
    start, field = place(where, toml, *location), _field(location)
    if error["type"] == "missing":
        there = list(map(str, error["input"])) if isinstance(error["input"], dict) else []
        plain = all(re.fullmatch(r"[\w.-]+", key) for key in there)
        beside = f"; it has {', '.join(there)}" if plain and 0 < len(there) <= 8 else ""
        return f"{start}{field!r} is missing{beside}"
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        owner = _owner(schema, location)
        _, _, hint = str(unknown("key", str(location[-1]), _keys(owner))).partition("; ")
        return f"{start}unknown key {field!r}; {hint}"
    legal = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    named = f"{field!r}" if field else "the file's value"
    return f"{start}{named} is {_shown(error['input'])}; legal: {legal}"


def _owner(schema: Any, location: tuple[str | int, ...]) -> Any:
    """The dataclass to which the last key of a location belongs."""
    kind = schema
    for part in location[:-1]:
        kind = next((one for one in get_args(kind) if is_dataclass(one)), kind)
        if isinstance(part, str):
            kind = _keys(kind).get(part)
    return next((one for one in get_args(kind) if is_dataclass(one)), kind)


def _keys(kind: Any) -> dict[str, Any]:
    """The keys of a dataclass, as written in files, with their types; empty for other types."""
    if not is_dataclass(kind):
        return {}
    hints, written = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    found = {}
    for name in (one.name for one in fields(kind)):
        notes = getattr(written[name], "__metadata__", ())
        alias = next((note.alias for note in notes if getattr(note, "alias", None)), name)
        found[alias] = hints[name]
    return found


def _shown(value: Any) -> str:
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
