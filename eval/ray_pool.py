"""Distributed work on Ray: actors that share a list of items, and tasks for parts of a search.

Workers see the same files as the process that starts them (one machine, or a shared file system).
They work in its current folder, so that relative paths mean the same.
See ``workers`` for what is asked of their work.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtremely.eval.workers import (
    AGAIN,
    LOSSES,
    OnEvent,
    Work,
    choose,
    end_if_device_lost,
    forwarded_warnings,
    ignore_event,
    portable,
    show_warning,
)
from xtremely.kernels.guard import InputError, UsageError, require

LEGAL = "legal: local, auto, HOST:PORT"
ANSWER_SECONDS = 10.0  # within which a cluster's port must answer; Ray itself tries for minutes
HEARD_SECONDS = 0.5  # between looks at what the workers send_event


def connect(address: str) -> None:
    """Use the cluster at an address: ``local`` starts one on this machine, ``auto`` finds one.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    if not address.strip():
        raise UsageError(f"--ray is empty; {LEGAL}")
    ray = _ray()
    if ray.is_initialized():
        return
    try:
        if address not in ("local", "auto"):
            _require_answer(address)
        with _own_signals():
            ray.init(
                address=None if address == "local" else address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="warning",
            )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"no Ray cluster at {address!r} ({reason}); {LEGAL}") from error


def _require_answer(address: str) -> None:
    """Raise OSError or ValueError unless something listens at HOST:PORT."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS):
        pass


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, which Ray takes for itself."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed; pip install 'xtremely[ray]'") from error
    return ray


@contextmanager
def _complaints() -> Iterator[None]:
    """Raise a worker's InputError as if it came from this process; bugs keep their traceback."""
    ray = _ray()
    try:
        yield
    except ray.exceptions.RayError as error:
        found: BaseException | None = error
        # Ray's error is also an instance of its cause's type; its text is a whole traceback.
        while isinstance(found, ray.exceptions.RayError) or not isinstance(
            found, InputError | None
        ):
            found = getattr(found, "cause", None) or found.__cause__
        if found is not None:
            raise found from error
        raise


@dataclass(frozen=True)
class RayWorkers:
    """Actors on a cluster, each on a processor, and on a GPU or a share of one.

    Attributes:
        most: most actors at the same time; None for as many as the cluster has room for.
        device: the device of their work: cpu, cuda, or auto for a GPU where the cluster has them.
        sharing: actors that share a GPU.
    """

    most: int | None = None
    device: str = "auto"
    sharing: int = 1

    def as_done(
        self,
        work: Work,
        items: Sequence[Any],
        on_event: OnEvent = ignore_event,
        title: Callable[[Any], str] = str,
    ) -> Generator[tuple[Any, Any], None, None]:
        """See ``workers.Workers.as_done``."""
        ray = _ray()
        waiting, left = deque(items), len(items)
        if not left:
            return
        events = _event_queue()
        actor_class = ray.remote(
            num_cpus=1, num_gpus=self._gpus(), max_restarts=-1, max_task_retries=LOSSES - 1
        )(_Actor)
        count = left if self.most is None else min(self.most, left)
        shared = ray.put(work)
        here = str(Path.cwd())
        actors = [actor_class.remote(shared, self.device, events, here) for _ in range(count)]
        running: dict[Any, tuple[Any, Any]] = {one.ready.remote(): (one, None) for one in actors}
        begun: dict[int, Any] = {}
        try:
            while left:
                done, _ = ray.wait([*running], timeout=HEARD_SECONDS)
                for number, event in _new_events(events):
                    if number is None:
                        show_warning(event)
                    elif number in begun:
                        on_event(begun[number], *event)
                for each in done:
                    actor, number = running.pop(each)
                    with _complaints(), _losses(number, begun, title):
                        found = ray.get(each)
                    if waiting:
                        following = len(items) - len(waiting)
                        begun[following] = waiting.popleft()
                        running[actor.do.remote(following, begun[following])] = actor, following
                    else:  # nothing is left for it, nor for those that have not begun
                        ray.kill(actor)
                        for idle in [one for one in running if running[one][1] is None]:
                            ray.kill(running.pop(idle)[0])
                    if number is not None:
                        left -= 1
                        yield begun.pop(number), found
        finally:
            for actor in actors:
                ray.kill(actor)
            events.shutdown(force=True)

    def _gpus(self) -> float:
        """The share of a GPU that an actor asks for."""
        there = _ray().cluster_resources().get("GPU", 0)
        require(
            there > 0 or not self.device.startswith("cuda"),
            f"the Ray cluster has no GPU for --device {self.device}; legal: cpu",
        )
        return 1 / self.sharing if there and self.device != "cpu" else 0


def _event_queue() -> Any:
    """A queue for what workers send_event, on this machine: it is lost with nobody else."""
    ray = _ray()
    here = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    options = {"num_cpus": 0, "scheduling_strategy": here}
    return importlib.import_module("ray.util.queue").Queue(actor_options=options)


def _new_events(events: Any) -> list[tuple[int | None, Any]]:
    """The events that have come: the number of their item, None for a warning, and the event."""
    count = events.qsize()
    return events.get_nowait_batch(count) if count else []


@contextmanager
def _losses(
    number: int | None, begun: dict[int, Any], title: Callable[[Any], str]
) -> Iterator[None]:
    """Turn the loss of an item's actors into an InputError."""
    ray = _ray()
    try:
        yield
    except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
        name = "a worker" if number is None else title(begun[number])
        raise InputError(
            f"{name}: its worker on Ray was lost {LOSSES} times; the system may have ended it for"
            f" its memory. {AGAIN.capitalize()}"
        ) from error


class _Actor:
    """A worker on Ray; arguments as of ``workers.Work``, the queue for events, and the folder that
    relative paths start from.
    """

    def __init__(self, work: Work, device: str, events: Any, folder: str):
        self.work, self.device, self.events, self.folder = work, device, events, folder

    def ready(self) -> None:
        """Be there."""
        _enter(self.folder)
        choose(self.device)

    def do(self, number: int, item: Any) -> Any:
        """Do the item with a number; what it tells is in the queue when it returns."""
        _enter(self.folder)  # again, as Ray may have replaced the process
        sent: Any = None

        def send_event(*event: Any) -> None:
            nonlocal sent
            sent = self.events.actor.put_nowait.remote((number, event))

        def warn(text: str) -> None:  # waits, as this process may end at once
            self.events.put((None, text))

        with forwarded_warnings(warn):
            try:
                result = self.work(self.device, item, send_event)
            except Exception as error:
                end_if_device_lost(error, self.device)
                raise portable(error) from None
        if sent is not None:
            _ray().get(sent)
        return result


def map_function(search: Callable[[slice], Any], parts: Iterable[slice]) -> Iterator[Any]:
    """``map`` with the calls on Ray's workers; a call whose worker dies is repeated."""
    ray = _ray()
    task = ray.remote(max_retries=-1)(_call)
    shared, here = ray.put(search), str(Path.cwd())
    for running in [task.remote(shared, part, here) for part in parts]:
        with _complaints():
            found = ray.get(running)
        yield found


def _call(call: Callable[[Any], Any], item: Any, folder: str) -> Any:
    _enter(folder)
    return call(item)


def _enter(folder: str) -> None:
    """Make the run's current folder this worker's, which began where the cluster was started."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"worker on {socket.gethostname()}: {folder}: {error.strerror}; give all machines the"
            " same files"
        ) from error
