"""Work for the tests of workers; their processes import it from here."""

import os
import signal
import time
import warnings
from pathlib import Path

import torch

from xtremely.kernels.guard import InputError


def first_time(mark: Path) -> bool:
    """Whether nobody has made a mark before."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def wait_for(marks, count: int) -> None:
    """Wait until so many marks are there."""
    deadline = time.monotonic() + 100
    while len([*marks()]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Counting:
    """Squares numbers and tells how many it has done itself; begins when all workers are there."""

    def __init__(self, folder, workers):
        self.folder, self.workers, self.done = folder, workers, 0

    def __call__(self, device, item, tell):
        (self.folder / f"here{os.getpid()}").touch()
        wait_for(lambda: self.folder.glob("here*"), self.workers)
        self.done += 1
        tell(device, self.done)
        return item * item, os.getpid()


class Killed:
    """Squares numbers. The process that does ``fatal`` is killed, the first ``deaths`` times."""

    def __init__(self, folder, fatal=3, deaths=1):
        self.folder, self.fatal, self.deaths = folder, fatal, deaths

    def __call__(self, device, item, tell):
        tell("began")
        for number in range(self.deaths):
            if item == self.fatal and first_time(self.folder / f"death{number}"):
                os.kill(os.getpid(), signal.SIGKILL)
        return item * item


class BrokenDevice:
    """Squares numbers, except on one device, where every call fails as on a GPU that is gone; the
    others wait until it has failed twice.
    """

    def __init__(self, error, device, folder):
        self.error, self.device, self.folder = error, device, folder

    def __call__(self, device, item, tell):
        if device == self.device:
            (self.folder / f"failed{os.getpid()}").touch()
            raise self.error
        wait_for(lambda: self.folder.glob("failed*"), 2)
        return item * item


class Awkward(InputError):
    """An exception that cannot be unpickled: it takes two arguments and knows one."""

    def __init__(self, name, number):
        super().__init__(f"{name} is {number}")


def complaining(device, item, tell):
    """Work that its input does not allow."""
    raise Awkward("rows", item)


def buggy(device, item, tell):
    """Work with a bug."""
    return item / 0


def out_of_memory(device, item, tell):
    """A batch of one sequence that does not fit: the run's problem, not the device's."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")


def warning(device, item, tell):
    """Work with a warning."""
    warnings.warn("tokens were cut", stacklevel=1)
    return item


def environment(device, item, tell):
    """The threads that a process has."""
    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ["RAYON_NUM_THREADS"]


def large(device, item, tell):
    """A result that no pipe holds at once, from every process that gets a folder; None else."""
    if item is None:
        return None
    wait_for(lambda: item.glob("go"), 1)
    (item / f"sends{os.getpid()}").touch()
    return b"x" * 10_000_000


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (1,)


class Alarming:
    """Warns where it is unpickled."""

    def __reduce__(self):
        return warnings.warn, ("a shared phase\nis damaged",)


def returned(device, item, tell):
    """The item itself."""
    return item


def slow(device, item, tell):
    """Work that takes a minute, and tells at its start which process does it."""
    tell(os.getpid())
    time.sleep(60)
