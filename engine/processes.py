"""Runs one model in several processes, each on a device of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from xtremely.engine.backends.select import named
from xtremely.engine.devices import usable_device
from xtremely.engine.hub.conventions import OWN, Conventions
from xtremely.engine.runtime import Engine, Progress
from xtremely.engine.transfer import Finish
from xtremely.kernels.guard import InputError, require

LARGEST_CHUNK = 5000  # most texts that a process gets at a time, unless the caller says otherwise


@dataclass(frozen=True)
class Request:
    """What is computed for a list of texts.

    Attributes:
        prompt: text before each of them.
        max_length: tokens after which they are cut.
        tokens: whether to return every token's hidden state instead of the text's vector.
    """

    prompt: str
    max_length: int
    tokens: bool = False


@dataclass(frozen=True)
class _Recipe:
    """How a process loads the parent's engine."""

    folder: str
    backend: str
    device: str
    precision: str
    token_budget: int
    conventions: Conventions
    threads: int


def compute(
    engine: Engine, texts: Sequence[str], request: Request, progress: Progress | None = None
) -> list[np.ndarray]:
    """The vectors of N texts, [D] fp32 each; or the hidden states of their tokens, [L, H] fp32."""
    last, found = engine.backend.layers, [np.empty(0)] * len(texts)
    tokens = engine.tokens(texts, prompt=request.prompt, max_length=request.max_length)
    if not request.tokens:
        vectors, _ = engine.pooled(tokens, layers=[last], poolings=[OWN], progress=progress)
        return list(vectors[:, 0, 0])

    def take(states: dict[int, torch.Tensor], batch: Any) -> Finish:
        values = states[last].float().cpu().numpy()
        borders = np.cumsum(batch.layout.lengths)[:-1]
        parts = dict(zip(batch.order.tolist(), np.split(values, borders), strict=True))

        def finish() -> None:
            for place, part in parts.items():
                found[place] = part

        return finish

    engine.run(tokens, [last], take, progress)
    return found


class Processes:
    """Processes that each hold a copy of an engine; they load it when they get their first texts.

    Args:
        engine: the engine.
        devices: a device for every process, such as ``["cpu", "cpu"]`` or ``["cuda:0", "cuda:1"]``.
            On another kind of device than the engine's, the backend is chosen anew.

    Raises:
        InputError: there is no device, or this machine does not have one of them.
    """

    def __init__(self, engine: Engine, devices: Sequence[str | torch.device]):
        require(len(devices) > 0, "the list of devices is empty; legal: at least one, such as cpu")
        self.count = len(devices)
        backend = engine.backend
        spawn = multiprocessing.get_context("spawn")
        recipes = spawn.SimpleQueue()
        for device in map(str, devices):
            alike = usable_device(device).type == backend.device.type
            recipes.put(
                _Recipe(
                    str(engine.folder),
                    named(backend) if alike else "auto",
                    device,
                    backend.precision,
                    engine.token_budget,
                    engine.conventions,
                    max(1, torch.get_num_threads() // self.count),
                )
            )
        self._pool = ProcessPoolExecutor(self.count, spawn, _start, (recipes,))

    def compute(
        self, texts: Sequence[str], request: Request, chunk_size: int | None = None
    ) -> Iterator[list[np.ndarray]]:
        """The results of ``compute`` for chunks of the texts, in order.

        Args:
            texts: N strings.
            request: what to compute.
            chunk_size: texts that a process gets at a time; by default a tenth of its share.

        Raises:
            InputError: a process ended before its work was done, now or in an earlier call.
        """
        share = -(-len(texts) // (10 * self.count))
        size = max(1, min(share, LARGEST_CHUNK)) if chunk_size is None else chunk_size
        require(size >= 1, f"chunk_size is {size}; legal: 1 or more")
        chunks = [texts[start : start + size] for start in range(0, len(texts), size)]
        try:
            yield from self._pool.map(_compute, chunks, [request] * len(chunks))
        except BrokenProcessPool as error:
            raise InputError(
                f"one of {self.count} processes ended before its work was done; the system may have"
                " killed it for its memory. Start a new pool, of fewer devices if memory is short"
            ) from error

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)


_mine: list[_Recipe] = []  # in a process: how it loads its engine


def _start(recipes: Any) -> None:
    _mine.append(recipes.get())


@cache
def _engine() -> Engine:
    recipe = _mine[0]
    torch.set_num_threads(recipe.threads)
    engine = Engine.load(
        recipe.folder,
        backend=recipe.backend,
        device=recipe.device,
        precision=recipe.precision,
        token_budget=recipe.token_budget,
    )
    return replace(engine, conventions=recipe.conventions)


def _compute(texts: Sequence[str], request: Request) -> list[np.ndarray]:
    return compute(_engine(), texts, request)
