"""The contenders of ``bench.encoders`` by name, each in a process of its own.

In one process they disturb each other. A library's idle threads and heap cost the next contender
up to a third of its speed.
"""

from __future__ import annotations

import multiprocessing
import subprocess
from collections.abc import Callable
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from transformers.utils import logging

from xtremely.bench import cpu_peers, external_env, peers
from xtremely.bench.harness import Contender
from xtremely.engine.backends.native.encoder import unavailable_reason, unsupported_reason
from xtremely.engine.config_json import read_json
from xtremely.engine.models.families import encoder_config, family_of
from xtremely.engine.runtime import Engine
from xtremely.eval.check.memory import watch
from xtremely.kernels.guard import InputError

Make = Callable[[int], Contender]  # a batch's token budget -> the contender
EAGER, DEFAULT = "transformers eager unsorted", "sentence-transformers default"
# These have no token budget, as they run the way users call them.
AS_CALLED = (
    EAGER,
    DEFAULT,
    external_env.ONNX,
    external_env.OPENVINO,
    external_env.FASTEMBED,
)
# llama.cpp reserves a number per token and entry of the vocabulary: 1 MB a token with e5-small.
MOST_TOKENS = {external_env.LLAMA_CPP: 1024}
OURS, BASELINE = "xtremely packed", "transformers sdpa sorted"
OWN = {  # name -> backend and precision
    OURS: ("torch", "fp32"),
    "xtremely native": ("native", "fp32"),
    "xtremely native int8": ("native", "int8"),
    "xtremely onnx fp32": ("onnx", "fp32"),
    "xtremely onnx int8": ("onnx", "int8"),
}


def names(scratch: Path, engine: Engine) -> list[str]:
    """Names of all contenders for a model on its device, the reference first; see ``makers``."""
    config = encoder_config(read_json(engine.folder / "config.json"), engine.folder)
    native = not unavailable_reason(engine.backend.device)
    forms = ("fp32", *({"int8"} & {*family_of(config).quantized}))
    runs = {form: native and not unsupported_reason(config, form) for form in forms}  # in C++
    own = [name for name, (kind, form) in OWN.items() if kind != "native" or runs.get(form)]
    others = [name for name, folder in external_env.FOLDERS.items() if (scratch / folder).exists()]
    return [EAGER, *own, BASELINE, DEFAULT, *cpu_peers.openers(scratch), *others]


def convert(engine: Engine, tuning: list[str], scratch: Path, python: str | None) -> None:
    """Write the model in the formats of the CPU peers.

    Args:
        engine: the model, on the torch backend.
        tuning: calibration texts, none of which is timed.
        scratch: an empty folder.
        python: the Python that the peers of ``external_env`` run in; None leaves them out.

    Raises:
        InputError: that Python cannot be run, or lacks a package.
    """
    cpu_peers.convert(engine, tuning, scratch)
    if python:
        command = [python, external_env.__file__, "convert", str(engine.folder), str(scratch)]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(
                f"--external-python {python} does not write the models; it needs the packages of"
                f" bench/external_env.txt: {error}"
            ) from error


def makers(model: str, engine: Engine, scratch: Path) -> dict[str, Make]:
    """Name -> function that makes the contender; a library's model is loaded at its first call.

    Args:
        model: the model's name, for this engine's contenders.
        engine: the same model on the torch backend, for its folder, prompt and device.
        scratch: the folder that ``convert`` wrote to; empty if it was not called.
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


class SubprocessContender:
    """A contender in another process, which waits while other contenders run.

    Args:
        name: name of the contender.
        start: starts the process with its end of the connection; returns the process's id and a
            function that waits for its end.
    """

    def __init__(self, name: str, start: Callable[[Connection], tuple[int, Callable[[], Any]]]):
        self.name = name
        self._near, far = multiprocessing.Pipe()
        self._number, self._wait = start(far)
        self._added: Callable[[], float | None] | None = None
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
        """Peak memory in MB that the model and its runs added to the process; None if unknown."""
        return self._added() if self._added else None

    def close(self) -> None:
        """End the process."""
        self._near.close()
        self._wait()

    def _ask(self, *request: Any) -> Any:
        try:
            if self._added is None:
                self._near.recv()  # libraries are loaded; their memory does not count
                self._added = watch(self._number)
            self._near.send(request)
            return self._near.recv()
        except (EOFError, OSError) as error:
            raise InputError(f"{self.name}: its process has ended; see its error above") from error


def spawn(
    model: str, name: str, scratch: Path, python: str | None, prompt: str
) -> SubprocessContender:
    """A contender in a process of its own.

    Args:
        model: see ``makers``.
        name: name of the contender.
        scratch: see ``makers``.
        python: the Python that the peers of ``external_env`` run in.
        prompt: text put before every sentence.
    """

    def ours(far: Connection) -> tuple[int, Callable[[], Any]]:
        arguments = (far, model, name, scratch)
        process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=arguments, daemon=True
        )
        process.start()
        assert process.pid is not None
        return process.pid, process.join

    def theirs(far: Connection) -> tuple[int, Callable[[], Any]]:
        command = [python, external_env.__file__, "serve", name, scratch, prompt, far.fileno()]
        process = subprocess.Popen(list(map(str, command)), pass_fds=[far.fileno()])
        return process.pid, process.wait

    return SubprocessContender(name, theirs if name in external_env.FOLDERS else ours)


def _serve(far: Connection, model: str, name: str, scratch: Path) -> None:
    # transformers reports models without a pooler as incomplete at every load; it is not used here.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    engine = Engine.load(model, backend="torch")
    external_env.serve(far, makers(model, engine, scratch)[name])
