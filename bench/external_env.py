"""Peers that need other library versions than this project, run by a Python that has them.

    python -m venv other && other/bin/pip install -r bench/external_env.txt
    python -m xtremely.bench.encoders --external-python other/bin/python

That Python runs this file as a script, so nothing here imports the project. ``convert`` writes the
models first, in a process of its own, so that memory for the export counts for no contender.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ONNX, OPENVINO, OPTIMUM = (
    "sentence-transformers onnx",
    "sentence-transformers openvino",
    "optimum onnxruntime",
)
FOLDERS = {ONNX: "external-onnx", OPENVINO: "external-openvino", OPTIMUM: "external-onnx"}


def serve(far: Connection, make: Callable[[int], Any]) -> None:
    """Answer requests of ``contenders.SubprocessContender`` until the connection is closed.

    Args:
        far: this process's end of the connection.
        make: token budget of a batch -> object with ``embed`` and ``before``.
    """
    make = cache(make)
    far.send("ready")
    while True:
        try:
            what, budget, *texts = far.recv()
        except EOFError:
            return
        if what == "processor":
            far.send(time.process_time())
        else:
            far.send(getattr(make(budget), what)(*texts))


def convert(folder: str, scratch: str) -> None:
    """Write the model in the format of every peer."""
    from sentence_transformers import SentenceTransformer

    for name, backend in ((ONNX, "onnx"), (OPENVINO, "openvino")):
        model = SentenceTransformer(folder, backend=backend, device="cpu")
        model.save_pretrained(str(Path(scratch) / FOLDERS[name]))


class Sentences:
    """``SentenceTransformer.encode`` with one of its backends and otherwise default settings."""

    def __init__(self, model: Any, prompt: str):
        self.model, self.prompt = model, prompt

    def before(self) -> None:
        """Nothing is kept between runs."""

    def embed(self, texts: list[str]) -> Any:
        """N texts to [N, H] normalised embeddings."""
        return self.model.encode(
            texts, prompt=self.prompt, normalize_embeddings=True, show_progress_bar=False
        )


class Optimum:
    """optimum's ``ORTModelForFeatureExtraction`` on padded batches, longest texts first."""

    def __init__(self, model: Any, tokenizer: Any, prompt: str, budget: int):
        self.model, self.tokenizer = model, tokenizer
        self.prompt, self.budget = prompt, budget

    def before(self) -> None:
        """Nothing is kept between runs."""

    def embed(self, texts: list[str]) -> Any:
        """N texts to [N, H] normalised embeddings."""
        import numpy as np

        encoded = self.tokenizer([self.prompt + text for text in texts], truncation=True)
        rows = encoded["input_ids"]
        out = np.empty((len(rows), self.model.config.hidden_size), dtype=np.float32)
        for places in batches([len(row) for row in rows], self.budget):
            padded = self.tokenizer.pad(
                {"input_ids": [rows[place] for place in places]}, return_tensors="np"
            )
            states = self.model(**padded).last_hidden_state
            mean = (states * padded["attention_mask"][:, :, None]).sum(axis=1)
            out[places] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return out


def batches(lengths: list[int], budget: int) -> Iterator[list[int]]:
    """Indices of texts, longest first, in batches of at most ``budget`` tokens (or one text)."""
    batch: list[int] = []
    tokens = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and tokens + lengths[place] > budget:
            yield batch
            batch, tokens = [], 0
        batch.append(place)
        tokens += lengths[place]
    if batch:
        yield batch


def main(what: str, *rest: str) -> None:
    """``convert FOLDER SCRATCH``, or ``serve NAME SCRATCH PROMPT FD``."""
    if what == "convert":
        return convert(*rest)
    name, scratch, prompt, number = rest
    folder = Path(scratch) / FOLDERS[name]
    # Memory that is allocated before "ready" does not count as the contender's.
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    @cache
    def load() -> Any:
        if name == OPTIMUM:
            from optimum.onnxruntime import ORTModelForFeatureExtraction

            return ORTModelForFeatureExtraction.from_pretrained(
                folder, subfolder="onnx", file_name="model.onnx", provider="CPUExecutionProvider"
            )
        return SentenceTransformer(str(folder), backend=name.split()[1], device="cpu")

    def make(budget: int) -> Optimum | Sentences:
        if name == OPTIMUM:
            return Optimum(load(), tokenizer, prompt, budget)
        return Sentences(load(), prompt)

    serve(Connection(int(number)), make)


if __name__ == "__main__":
    main(*sys.argv[1:])
