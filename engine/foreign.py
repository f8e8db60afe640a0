"""Turns exceptions of other libraries about a user's files into one-line InputErrors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xtremely.kernels.guard import InputError

_REASON = 200  # characters of another library's message that are quoted
_BARE = (LookupError, AttributeError, TypeError, ArithmeticError, AssertionError)


def one_line(error: BaseException) -> str:
    """Another library's message, shortened to one line for use inside our own."""
    text = " ".join(str(error).split())
    if not text or isinstance(error, _BARE):  # their messages mean little without the type
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if len(text) <= _REASON else text[: _REASON - 3] + "..."


@contextmanager
def foreign(trouble: str) -> Iterator[None]:
    """Turn any exception of another library inside the block into an InputError of one line.

    Args:
        trouble: what it means to the user, with the file.

    Raises:
        InputError: ``trouble`` with the library's reason.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # on a device, where smaller batches may fit
            raise
        raise InputError(f"{trouble} ({one_line(error)})") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a Rust panic is not an Exception
            raise
        raise InputError(f"{trouble} ({one_line(error)})") from error
