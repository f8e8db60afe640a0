"""How a command ends that fails or is stopped: one line, an exit code, no traceback.

Ctrl-C and SIGTERM are one exception, ``Stopped``, whatever a command is doing: child processes are
ended, files that were being written disappear, and both print the same line.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from xtremely.files.writing import DISK
from xtremely.kernels.guard import InputError, UsageError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GOES_ON = "finished work is kept; run the same command again to continue"
# Command -> what it keeps when it is stopped; the others write everything at their end.
KEPT = {
    **dict.fromkeys(("eval", "train", "mine", "index build", "study run", "data get"), GOES_ON),
    "kernels tune": "what was measured is kept in the table",
}
NOTHING_KEPT = "nothing was written, the same command starts anew"
GRACE_SECONDS = 3.0  # after which a child process is killed


class Stopped(BaseException):
    """The process received SIGINT or SIGTERM; ``number`` tells which."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(number)


class Signals:
    """The signal that came while a command ran: ``number``, None for none."""

    number: int | None = None


class _Output(io.FileIO):
    """An output that goes nowhere once its reader is gone, as with ``xtremely tasks | head -1``."""

    def write(self, data: Any, /) -> int:
        """Write bytes."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def _lenient(stream: Any) -> Any:
    """An output stream that escapes what it cannot show; the process's own also lose no reader."""
    if isinstance(stream, io.TextIOWrapper):  # None where it is closed
        stream.reconfigure(errors="backslashreplace")
        if stream in (sys.__stdout__, sys.__stderr__):
            raw = _Output(stream.fileno(), "w", closefd=False)
            return io.TextIOWrapper(
                io.BufferedWriter(raw),
                stream.encoding,
                "backslashreplace",
                line_buffering=stream.line_buffering,
            )
    return stream


@contextmanager
def lenient_streams() -> Iterator[None]:
    """Let no command end because of what its terminal cannot show or its reader does not read."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_lenient, before)
    try:
        yield
    finally:
        written = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = before
        for stream in written:
            if stream is not None:
                stream.flush()


@contextmanager
def stoppable() -> Iterator[Signals]:
    """Let signals raise ``Stopped`` inside; a second one ends the process at once."""
    owner, seen = os.getpid(), Signals()

    def stop(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if os.getpid() != owner:  # a forked child, which prints nothing
            os.kill(os.getpid(), number)
        seen.number = number
        _end_children()
        raise Stopped(number)

    try:
        before = {each: signal.signal(each, stop) for each in SIGNALS}
    except ValueError:  # only the main thread receives signals
        yield seen
        return
    try:
        yield seen
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _end_children() -> None:
    """End the worker processes of the command."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None:
        children = multiprocessing.active_children()
        for child in children:
            child.terminate()
        for child in children:  # one that was being forked may have missed the signal
            child.join(GRACE_SECONDS)
            child.kill()


def ending(error: BaseException, command: str, seen: Signals) -> tuple[str, int] | None:
    """The line to print for an exception that ended a command, and the exit code.

    Args:
        error: the exception.
        command: the command as typed, such as ``study run``.
        seen: the signals that came.

    Returns:
        None for a regular exit, and for a bug, which keeps its traceback.
    """
    kept = KEPT.get(command, KEPT.get(command.partition(" ")[0], NOTHING_KEPT))
    if seen.number is not None or isinstance(error, Stopped):
        return f"interrupted; {kept}", 128 + (seen.number or signal.SIGINT)
    if isinstance(error, InputError):
        return str(error), 2 if isinstance(error, UsageError) else 1
    if isinstance(error, MemoryError) or _is_allocation(error):
        detail = str(error).splitlines()[0][:200] if str(error) else "no more can be had"
        return f"out of memory ({detail}); {kept}; free some, or ask for less at a time", 1
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        after = f"; {kept}" if error.errno in DISK else ""
        return f"{error.strerror or error}{where}{after}", 1
    return None


def _is_allocation(error: BaseException) -> bool:
    """Whether torch ran out of memory, on a GPU or on the host."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)
