"""Every backend and precision that runs a model on this machine, measured against references.

States are compared with transformers', vectors and predictions with torch's in fp32.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.backends.select import BACKENDS
from xtremely.engine.models.encoder import PRECISIONS
from xtremely.engine.runtime import Engine
from xtremely.eval.check.checks import check_company, check_states
from xtremely.eval.check.finding import Finding
from xtremely.eval.check.memory import watch
from xtremely.eval.check.sample import Sample, mini
from xtremely.eval.check.states import cosines
from xtremely.eval.methods.kinds import kind_of
from xtremely.eval.methods.spaces import Space, is_headline
from xtremely.eval.tasks.xtreme.mini import TASK
from xtremely.kernels.guard import InputError, UsageError
from xtremely.kernels.pooling import normalise

REFERENCE = ("torch", "fp32")
# Emulations on a CPU, which are slow and serve only to test the real ones.
EMULATED = {("torch", "fp8"), ("torch", "int8"), ("onnx", "fp16")}
# Sentences of the mini suite in each language: as many as take no more than SECONDS.
COUNTS, SECONDS = (60, 20, 6), 6.0


@dataclass(frozen=True)
class Row:
    """What one backend in one precision does to a model.

    Attributes:
        backend: its name.
        precision: one of ``PRECISIONS``.
        findings: its states against transformers', and its bits alone and in company.
        cosines: of its vectors to torch's in fp32, see ``states.cosines``.
        flips: predictions on the mini suite that differ from those of torch in fp32.
        predictions: number of predictions.
        memory_mb: growth of peak memory; None where it is not known.
        tokens_per_second: on the mini suite, without tokenising.
        left_out: why it was not run; empty if it was.
    """

    backend: str
    precision: str
    findings: list[Finding] = field(default_factory=list)
    cosines: dict[str, float] = field(default_factory=dict)
    flips: int = 0
    predictions: int = 0
    memory_mb: float | None = None
    tokens_per_second: float = 0.0
    left_out: str = ""


@dataclass(frozen=True)
class Mini:
    """Vectors of the mini suite's sentences.

    Attributes:
        count: sentences of each language.
        vectors: language -> [count, H], unit rows; ``en`` is the English side.
        speed: tokens per second.
    """

    count: int
    vectors: dict[str, np.ndarray]
    speed: float

    def rows(self, count: int) -> np.ndarray:
        """All vectors of the first sentences of each language."""
        return np.concatenate([one[:count] for one in self.vectors.values()])

    def predictions(self, count: int) -> list[str]:
        """The translation that is found for every English sentence among the first ``count``."""
        space = Space(0, "", "none")
        found: list[str] = []
        match = kind_of(TASK).match
        assert match is not None
        for code in TASK.languages:
            data = kind_of(TASK).first(TASK.load(None, code)["test"], count)
            sides = self.vectors[code][:count], self.vectors["en"][:count]
            scored = match(TASK, {"test": data}, {"test": lambda _, sides=sides: sides}, [space])
            (headline,) = (one for one in scored if is_headline(one, TASK, space))
            found += headline.submission
        return found


def embedded(engine: Engine, speed: float, most: int = COUNTS[0]) -> Mini:
    """Embed as much of the mini suite as the speed, in tokens per second, allows.

    Vectors are made as ``xtremely eval`` makes them: with the model's prompt and pooling.
    """
    sides = {code: mini(code) for code in (*TASK.languages, "en")}
    for count in [one for one in COUNTS if one <= most]:
        tokens = engine.tokens([text for side in sides.values() for text in side[:count]])
        if len(tokens.ids) <= SECONDS * speed:
            break
    pooling = engine.conventions.pooling
    values, work = engine.pooled(tokens, layers=[engine.backend.layers], poolings=[pooling])
    vectors = normalise(torch.from_numpy(values[:, 0, 0])).numpy()
    parts = np.split(vectors, len(sides))
    return Mini(count, dict(zip(sides, parts, strict=True)), work.tokens / work.seconds)


def combinations(device: torch.device) -> Iterator[tuple[str, str]]:
    """Every backend and precision to try, the reference first; emulations are left out."""
    yield REFERENCE
    for backend, precision in product(BACKENDS, PRECISIONS):
        emulated = device.type == "cpu" and (
            backend == "triton" or (backend, precision) in EMULATED
        )
        if backend != "auto" and (backend, precision) != REFERENCE and not emulated:
            yield backend, precision


def check_backends(
    load: Callable[..., Engine],
    device: torch.device,
    sample: Sample,
    expected: Mapping[int, Tensor],
) -> Iterator[Row]:
    """Check every backend and precision, one after the other.

    Args:
        load: loads the model, given a backend, a device and a precision.
        device: where to compute.
        sample: the sequences whose states are compared.
        expected: every layer's states in fp32, of the reference.
    """
    reference: Mini | None = None
    for backend, precision in combinations(device):
        memory = _memory(device)
        try:
            engine = load(backend=backend, device=str(device), precision=precision)
        except UsageError:  # the backend does not have the precision
            continue
        except InputError as error:
            yield Row(backend, precision, left_out=str(error))
            continue
        try:
            engine.embed(["warm up"])
            start = time.perf_counter()
            findings = [check_states(engine, sample, expected)]
            speed = len(sample.tokens.ids) / (time.perf_counter() - start)
            findings.append(check_company(engine, sample))
            mini = embedded(engine, speed, COUNTS[0] if reference is None else reference.count)
        except InputError as error:
            broken = Finding(f"states, {backend} {precision}", False, remark=str(error))
            yield Row(backend, precision, [broken])
            continue
        reference = mini if reference is None else reference
        ours, theirs = mini.predictions(mini.count), reference.predictions(mini.count)
        yield Row(
            backend,
            precision,
            findings,
            cosines(mini.rows(mini.count), reference.rows(mini.count)),
            sum(a != b for a, b in zip(ours, theirs, strict=True)),
            len(ours),
            memory(),
            mini.speed,
        )
        del engine
        gc.collect()


def _memory(device: torch.device) -> Callable[[], float | None]:
    """A function that returns by how many MB the peak of memory has grown since now."""
    if device.type == "cpu":
        return watch(os.getpid())
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    return lambda: round((torch.cuda.max_memory_allocated(device) - before) / 1e6, 1)
