"""JSON files with checksums, from which a run resumes.

A file that is truncated, changed or of another form counts as missing. A note is printed and its
content is computed again. Files of older versions have no checksum and are accepted if their form
is right.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xtremely.eval.run.results import dumps
from xtremely.files.documents import fit, parse_json, read_text
from xtremely.files.writing import write_atomic
from xtremely.kernels.guard import InputError, require


def keep(path: Path, value: dict[str, Any]) -> None:
    """Write a value and its checksum atomically."""
    write_atomic(path, dumps({**value, "checksum": checksum(value)}).encode("utf-8"))


def kept(
    path: Path, schema: Any, check: Callable[[Any], None] = lambda value: None
) -> dict[str, Any] | None:
    """Read a value that ``keep`` wrote; None if there is none or it is damaged.

    Args:
        path: its file.
        schema: the value's type, see ``files.documents``.
        check: raises InputError for a value that is not the expected one.
    """
    if not path.exists():
        return None
    try:
        found = read_kept(path, schema)
        check(found)
    except InputError as error:
        warnings.warn(f"{error}; it is computed again", stacklevel=2)
        return None
    return found


def read_kept(path: Path, schema: Any) -> dict[str, Any]:
    """Read a value that ``keep`` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    found: Any = parse_json(read_text(path), object, str(path))
    require(isinstance(found, dict), f"{path}: is no object")
    noted = found.pop("checksum", None)
    fit(found, schema, str(path))
    require(noted in (None, checksum(found)), f"{path}: was changed or cut")
    return found


def checksum(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
