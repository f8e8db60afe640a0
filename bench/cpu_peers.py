"""Other libraries' fast ways of running the same encoder on a CPU, those that are installed.

OpenVINO reads the model that ``xtremely export`` writes; its int8 model is NNCF's, with static
ranges calibrated on texts that are not timed. CTranslate2 converts the ordinary folder itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.bench.harness import Contender
from xtremely.engine.backend import Packed
from xtremely.engine.batch import plan
from xtremely.engine.export import FILE, export
from xtremely.engine.onnx_product import IDS, MASK, Product
from xtremely.engine.runtime import Engine
from xtremely.engine.tokenize import Tokenizer

Batch = tuple[np.ndarray, np.ndarray]  # ids and mask, each [B, L] int64
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]  # ids and mask to [B, H] of length 1
CALIBRATION = 200  # texts


def padded(engine: Engine, texts: Sequence[str], budget: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Rows of texts and their padded batch, longest first, at most ``budget`` tokens unpadded."""
    tokenizer = Tokenizer(engine.folder, engine.backend.max_length)  # remembers nothing
    prompt = engine.conventions.default_prompt
    tokens = tokenizer([prompt + text for text in texts])
    for rows in plan(tokens.lengths, budget):
        lengths = tokens.lengths[rows]
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        borders = zip(tokens.offsets[rows], tokens.offsets[rows + 1], strict=True)
        ids[mask] = np.concatenate([tokens.ids[start:end] for start, end in borders])
        yield rows, (ids, mask.astype(np.int64))


def contender(engine: Engine, name: str, run: Run, budget: int) -> Contender:
    """What runs padded batches, as a contender."""

    def embed(texts: list[str]) -> np.ndarray:
        out = np.empty((len(texts), engine.backend.width), dtype=np.float32)
        for rows, batch in padded(engine, texts, budget):
            out[rows] = run(*batch)
        return out

    return Contender(name, embed)


def installed(engine: Engine, tuning: list[str], scratch: Path) -> dict[str, Run]:
    """The runs of every library that is installed, by the contender's name.

    Args:
        engine: the model, on the torch backend.
        tuning: texts to calibrate on, none of which is timed.
        scratch: a folder for converted models.
    """
    runs: dict[str, Run] = {}
    if find_spec("openvino"):
        runs |= _openvino(engine, tuning, scratch)
    if find_spec("ctranslate2"):
        runs |= _ctranslate2(engine, scratch)
    return runs


def _openvino(engine: Engine, tuning: list[str], scratch: Path) -> dict[str, Run]:
    import openvino

    assert isinstance(engine.backend, Packed)
    product = Product("embedding", (engine.backend.layers,), "mean")
    export(engine.folder, engine.backend, product, "fp32", scratch / "onnx")
    core = openvino.Core()
    models = {"OpenVINO fp32": core.read_model(scratch / "onnx" / FILE)}
    if find_spec("nncf"):
        import nncf

        samples = [
            dict(zip((IDS, MASK), batch, strict=True))
            for _, batch in padded(engine, tuning[:CALIBRATION], 256)
        ]
        models["OpenVINO int8 (NNCF)"] = nncf.quantize(
            core.read_model(scratch / "onnx" / FILE),
            nncf.Dataset(samples),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
        )
    # Left to itself OpenVINO would compute fp32 models in a lower precision where it can.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return {name: _ov_run(core.compile_model(m, "CPU", settings)) for name, m in models.items()}


def _ov_run(compiled: Any) -> Run:
    return lambda ids, mask: compiled({IDS: ids, MASK: mask})[0]


def _ctranslate2(engine: Engine, scratch: Path) -> dict[str, Run]:
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(engine.folder)).convert(str(scratch / "ct2"))
    runs = {}
    for precision in ("float32", "int8"):
        encoder = ctranslate2.Encoder(str(scratch / "ct2"), compute_type=precision)
        runs[f"CTranslate2 {precision}"] = _ct2_run(encoder)
    return runs


def _ct2_run(encoder: Any) -> Run:
    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        rows = [row[:length].tolist() for row, length in zip(ids, mask.sum(axis=1), strict=True)]
        states = np.array(encoder.forward_batch(rows).last_hidden_state)
        mean = (states * mask[:, :, None]).sum(axis=1)  # its length is taken off anyway
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    return run
