"""What other libraries raise on a user's files, as one line of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xtremely.kernels.guard import InputError

_REASON = 200  # characters of another library's complaint that ours repeats
_BARE = (LookupError, AttributeError, TypeError, ArithmeticError, AssertionError)


def one_line(error: BaseException) -> str:
    """Another library's complaint, short enough to stand inside ours."""
    text = " ".join(str(error).split())
    if not text or isinstance(error, _BARE):  # whose texts say little alone
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if len(text) <= _REASON else text[: _REASON - 3] + "..."


@contextmanager
def foreign(trouble: str) -> Iterator[None]:
    """Turn whatever another library raises on a file of the user's into one line.

    Args:
        trouble: what it means to the user, with the file.

    Raises:
        InputError: with the library's reason.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # of a device: smaller batches may fit
            raise
        raise InputError(f"{trouble} ({one_line(error)})") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a panic in Rust is no Exception
            raise
        raise InputError(f"{trouble} ({one_line(error)})") from error
