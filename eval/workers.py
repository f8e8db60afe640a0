"""Workers that share a list of items: processes of this machine here, actors in ``ray_pool``.

A command gives its workers one function, with which each of them does one item after the other.
The function may keep what all items need, such as a model: every worker has its own copy of it. It
must give the same result wherever an item is done, and keep its finished work in files. So an item
whose worker is lost is done again and the result does not change.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

from xtremely.kernels.guard import InputError, UsageError, require

LOSSES = 3  # workers that may be lost over one item before the run stops
LEFT_OUT = 2  # workers of a device that are lost one after the other before it is left out
AGAIN = "finished work is kept: run the same command again, with fewer --workers if it recurs"
# What CUDA and Triton say where the device, or the process's use of it, is lost for good.
_DEVICE_ERRORS = ("CUDA error", "CUDA driver error", "Triton Error [CUDA]", "HIP error")

SendEvent = Callable[..., None]  # sends an event of the item to the process that runs the pool
Work = Callable[[str, Any, SendEvent], Any]  # (device, item, send_event) -> the item's result
OnEvent = Callable[..., None]  # receives an item and an event's parts


def ignore_event(item: Any, *event: Any) -> None:
    """Do nothing with an event."""


class Workers(Protocol):
    """Something that does items, several at a time.

    Attributes:
        most: most items at the same time; None if it is not known.
    """

    @property
    def most(self) -> int | None: ...  # noqa: D102

    def as_done(
        self,
        work: Work,
        items: Sequence[Any],
        on_event: OnEvent = ignore_event,
        title: Callable[[Any], str] = str,
    ) -> Generator[tuple[Any, Any], None, None]:
        """Pairs of an item and its result, in the order in which they are finished.

        The workers end with the iterator, which the caller has to close.

        Args:
            work: does an item; it is pickled, once for each worker.
            items: what is to be done, in this order as far as possible.
            on_event: called here with the events that ``work`` tells.
            title: names an item in messages.

        Raises:
            InputError: a worker raised it, or the workers of an item were lost again and again.
        """
        ...


@dataclass
class _Item:
    """An item that is not finished.

    Attributes:
        value: what the caller gave.
        lost_on: the devices of the workers that were lost over it, one for each loss.
    """

    value: Any
    lost_on: list[str] = field(default_factory=list)


@dataclass
class _Worker:
    """A running process.

    Attributes:
        place: its number among the devices.
        process: the process.
        pipe: this end of the pipe to it.
        item: what it does at present.
        ready: whether it has started and waits for an item.
    """

    place: int
    process: BaseProcess
    pipe: Connection
    item: _Item | None = None
    ready: bool = False


@dataclass(frozen=True)
class LocalWorkers:
    """Processes of this machine, which share its threads.

    Attributes:
        devices: the device of each process, such as ``("cuda:0", "cuda:1")`` or ``("cpu", "cpu")``.
    """

    devices: tuple[str, ...]

    @property
    def most(self) -> int:
        """The number of processes."""
        return len(self.devices)

    def as_done(
        self,
        work: Work,
        items: Sequence[Any],
        on_event: OnEvent = ignore_event,
        title: Callable[[Any], str] = str,
    ) -> Generator[tuple[Any, Any], None, None]:
        """See ``Workers.as_done``."""
        crew = _Crew(work, self.devices[: len(items)], title)
        crew.waiting.extend(map(_Item, items))
        try:
            for place in range(len(crew.devices)):
                crew.start(place)
            left = len(items)
            while left:
                crew.hand_out()
                for worker, kind, value in crew.messages():
                    if kind == "event":
                        assert worker.item is not None
                        on_event(worker.item.value, *value)
                    elif kind == "done":
                        assert worker.item is not None
                        item, worker.item, worker.ready = worker.item, None, True
                        left -= 1
                        yield item.value, value
        finally:
            crew.end()


class _Crew:
    """The processes of one call, and the items that wait for them."""

    def __init__(self, work: Work, devices: tuple[str, ...], title: Callable[[Any], str]):
        self.work, self.devices, self.title = work, devices, title
        self.waiting: deque[_Item] = deque()
        self.workers: list[_Worker] = []
        self.losses = [0] * len(devices)  # workers of a place, lost one after the other
        self.threads = max(1, torch.get_num_threads() // max(1, len(devices)))

    def start(self, place: int) -> None:
        """Start a process at a place."""
        context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA again
        pipe, far = context.Pipe()
        process = context.Process(target=_serve, args=(self.work, self.devices[place], far))
        with _inherited(self.threads):
            process.start()
        far.close()  # so that the pipe ends with the process
        self.workers.append(_Worker(place, process, pipe))

    def hand_out(self) -> None:
        """Give every idle worker an item, preferably one that was not lost on its device."""
        for worker in self.workers:
            if not (worker.ready and self.waiting):
                continue
            own = self.devices[worker.place]
            others = {self.devices[one.place] for one in self.workers} - {own}
            fit = [
                item
                for item in self.waiting
                if own not in item.lost_on or others <= {*item.lost_on}
            ]
            if not fit:
                continue
            self.waiting.remove(fit[0])
            worker.item, worker.ready = fit[0], False
            with suppress(OSError):  # it is lost, and its pipe says so next
                worker.pipe.send(fit[0].value)

    def messages(self) -> Iterator[tuple[_Worker, str, Any]]:
        """What the workers send next; lost ones are replaced.

        Raises:
            Exception: what a worker raised.
        """
        by_pipe = {worker.pipe: worker for worker in self.workers}
        for pipe in wait([*by_pipe]):
            assert isinstance(pipe, Connection)
            worker = by_pipe[pipe]
            try:
                kind, value = pipe.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            if kind == "failed":
                raise value
            if kind == "warning":
                show_warning(value)
            elif kind == "ready":
                worker.ready = True
            else:
                if kind == "done":
                    self.losses[worker.place] = 0
                yield worker, kind, value

    def _replace(self, lost: _Worker) -> None:
        """Put a lost worker's item back, and start another worker or leave its place out.

        Raises:
            InputError: too many workers were lost.
        """
        self.workers.remove(lost)
        reason = _ended(lost)
        device, item = self.devices[lost.place], lost.item
        if item is not None:
            item.lost_on.append(device)
            name = self.title(item.value)
            require(
                len(item.lost_on) < LOSSES,
                f"{name}: its worker {reason}, the last of {LOSSES}; the system may have ended"
                f" them for their memory. {AGAIN.capitalize()}",
            )
            warnings.warn(f"a worker on {device} {reason}; {name} is done again", stacklevel=2)
            self.waiting.appendleft(item)
        self.losses[lost.place] += 1
        if self.losses[lost.place] < LEFT_OUT:
            self.start(lost.place)
            return
        left = len(self.workers)
        require(
            left > 0, f"no worker is left: the last one, on {device}, {reason} like others; {AGAIN}"
        )
        warnings.warn(
            f"{LEFT_OUT} workers on {device} ended one after the other: it goes on with {left}"
            f" worker{'s' * (left > 1)}",
            stacklevel=2,
        )

    def end(self) -> None:
        """End all processes now; what they are doing is resumed another time."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()


def _ended(lost: _Worker) -> str:
    """How a lost worker ended, for a message."""
    lost.pipe.close()
    lost.process.join(1)
    lost.process.kill()  # where it closed its pipe and lives
    lost.process.join()
    code = lost.process.exitcode or 0
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


@contextmanager
def _inherited(threads: int) -> Iterator[None]:
    """What a process that is started inside has from its first moment: its share of the threads,
    for libraries that read it once, and no answer to Ctrl-C, which is the run's.
    """
    names = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(work: Work, device: str, pipe: Connection) -> None:
    """Do the items that come through a pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_the_run, daemon=True).start()

    def send_event(*event: Any) -> None:
        pipe.send(("event", event))

    with forwarded_warnings(lambda text: pipe.send(("warning", text))):
        try:
            choose(device)
        except Exception as error:
            end_if_device_lost(error, device)
            raise
        pipe.send(("ready", None))
        while True:
            try:
                item = pipe.recv()
            except EOFError:
                return
            except Exception as error:
                pipe.send(("failed", portable(error)))
                continue
            try:
                answer = "done", work(device, item, send_event)
            except Exception as error:
                end_if_device_lost(error, device)
                answer = "failed", portable(error)
            pipe.send(answer)


def _die_with_the_run() -> None:
    """End this worker when the run dies; otherwise it would finish its item first."""
    run = multiprocessing.parent_process()
    if run is not None:
        run.join()
        os.kill(os.getpid(), signal.SIGKILL)


def show_warning(text: str) -> None:
    """Show a worker's warning here; Python shows equal ones of several workers once."""
    warnings.warn(text, stacklevel=2)


@contextmanager
def forwarded_warnings(send_event: Callable[[str], None]) -> Iterator[None]:
    """Send this process's warnings to the run, which shows them as its own."""

    def show(message, category, filename, lineno, file=None, line=None):  # noqa: ANN001
        if category is not DeprecationWarning and category is not FutureWarning:
            send_event(str(message))

    before, warnings.showwarning = warnings.showwarning, show
    try:
        yield
    finally:
        warnings.showwarning = before


def choose(device: str) -> None:
    """Make a GPU the current one of this process, for kernels that are launched without a name."""
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)


def end_if_device_lost(error: Exception, device: str) -> None:
    """End this process if its device is lost: after such an error no call to CUDA succeeds."""
    lost = isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _DEVICE_ERRORS)
    )
    if lost and not isinstance(error, torch.OutOfMemoryError):
        first = (str(error).splitlines() or [""])[0]
        warnings.warn(f"device {device} failed: {first[:200]}", stacklevel=2)
        os._exit(1)


def portable(error: Exception) -> Exception:
    """An exception as another process can raise it; a bug keeps its traceback as a note."""
    if isinstance(error, InputError):  # some take more than a message
        kind = UsageError if isinstance(error, UsageError) else InputError
        return kind(str(error))
    text = "".join(traceback.format_exception(error))
    error.add_note(f"in a worker:\n{text}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        other = RuntimeError(f"{type(error).__name__}: {error}")
        other.add_note(f"in a worker:\n{text}")
        return other
    return error
