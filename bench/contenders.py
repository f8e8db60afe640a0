"""The contenders of ``bench.encoders`` by name, each in a process of its own.

In one process they disturb each other: a library's idle threads and its heap cost the next one up
to a third of its speed.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from xtremely.bench import cpu_peers, peers
from xtremely.bench.harness import Contender
from xtremely.bench.memory import watch
from xtremely.engine.native import lacking
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError

Make = Callable[[int], Contender]  # a batch's token budget -> the contender
EAGER, DEFAULT = "transformers eager unsorted", "sentence-transformers default"
AS_CALLED = (EAGER, DEFAULT)  # these have no budget: they run as users call them
OURS, BASELINE = "xtremely packed", "transformers sdpa sorted"
OWN = {  # name -> backend and precision
    OURS: ("torch", "fp32"),
    "xtremely native": ("native", "fp32"),
    "xtremely native int8": ("native", "int8"),
    "xtremely onnx fp32": ("onnx", "fp32"),
    "xtremely onnx int8": ("onnx", "int8"),
}


def names(scratch: Path, device: torch.device) -> list[str]:
    """All contenders that run on a device, the reference of all first; see ``makers``."""
    native = not lacking(device)
    own = [name for name, (backend, _) in OWN.items() if native or backend != "native"]
    return [EAGER, *own, BASELINE, DEFAULT, *cpu_peers.openers(scratch)]


def makers(model: str, engine: Engine, scratch: Path) -> dict[str, Make]:
    """How every contender is made; a library's model is loaded once, at the first call.

    Args:
        model: the name that ours are loaded by.
        engine: the same model on the torch backend, for its folder, prompt and device.
        scratch: where ``cpu_peers.convert`` wrote; empty if it did not.
    """
    eager = cache(partial(peers.Transformers, engine, "eager"))
    sdpa = cache(partial(peers.Transformers, engine, "sdpa"))
    made: dict[str, Make] = {
        EAGER: lambda budget: eager().naive(),
        BASELINE: lambda budget: sdpa().sorted(budget),
        DEFAULT: lambda budget: peers.sentence_transformers(engine),
    }
    for name, (backend, precision) in OWN.items():
        made[name] = _own(model, engine, backend, precision, name)
    for name, opener in cpu_peers.openers(scratch).items():
        made[name] = _peer(engine, name, cache(opener))
    return made


def _own(model: str, engine: Engine, backend: str, precision: str, name: str) -> Make:
    device = engine.backend.device.type

    @cache
    def load() -> Engine:
        return Engine.load(model, backend=backend, device=device, precision=precision)

    return lambda budget: peers.packed(load(), budget, name)


def _peer(engine: Engine, name: str, opener: Callable[[], cpu_peers.Run]) -> Make:
    return lambda budget: cpu_peers.contender(engine, name, opener(), budget)


class Apart:
    """A contender that runs in another process, which waits while others run.

    Args:
        model: as of ``makers``.
        name: the contender's.
        scratch: as of ``makers``.
    """

    def __init__(self, model: str, name: str, scratch: Path):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._near, far = context.Pipe()
        arguments = (far, model, name, scratch)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        far.close()

    def __call__(self, budget: int) -> Contender:
        """The contender with a token budget."""
        return Contender(
            self.name,
            embed=lambda texts: self._ask("embed", budget, texts),
            before=lambda: self._ask("before", budget),
            processor=lambda: self._ask("processor", budget),
        )

    def peak(self) -> float | None:
        """MB that model and runs added to the process at their peak; None where unknown."""
        return self._ask("peak", 0)

    def close(self) -> None:
        """End the process."""
        self._near.close()
        self._process.join()

    def _ask(self, *request: Any) -> Any:
        try:
            self._near.send(request)
            return self._near.recv()
        except (EOFError, OSError) as error:
            raise InputError(f"{self.name}: its process has ended; see its error above") from error


def _serve(far: Connection, model: str, name: str, scratch: Path) -> None:
    # Models without a pooler are reported as incomplete at every load; nothing here uses it.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    engine = Engine.load(model, backend="torch")
    make = cache(makers(model, engine, scratch)[name])
    added = watch()
    while True:
        try:
            what, budget, *texts = far.recv()
        except EOFError:
            return
        if what == "peak":
            far.send(added())
        elif what == "processor":
            far.send(time.process_time())
        elif what == "before":
            far.send(make(budget).before())
        else:
            far.send(make(budget).embed(*texts))
