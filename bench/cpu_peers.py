"""CPU peers: the same encoder in OpenVINO and CTranslate2, where they are installed.

Each runs with its defaults, all cores on one batch, and in streams, with one batch per core.
OpenVINO reads the model that ``xtremely export`` writes. Its int8 model is made by NNCF, with
static ranges calibrated on texts that are not timed. CTranslate2 converts the model folder itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import torch

from xtremely.bench.harness import Contender
from xtremely.engine.backends.onnx.export import FILE, export
from xtremely.engine.backends.onnx.outputs import IDS, MASK, Product
from xtremely.engine.backends.packed import Packed
from xtremely.engine.config_json import read_json
from xtremely.engine.models.bert import BertConfig
from xtremely.engine.models.families import encoder_config
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import plan

Batch = tuple[np.ndarray, np.ndarray]  # ids and mask, each [B, L] int64
Run = Callable[[Iterable[Batch]], Iterable[np.ndarray]]  # batches to [B, H] of length 1, in order
CALIBRATION = 200  # texts
OPENVINO = {  # name -> file, and precision of what is not in int8
    "OpenVINO fp32": (f"onnx/{FILE}", "f32"),
    "OpenVINO bf16": (f"onnx/{FILE}", "bf16"),
    "OpenVINO int8 (NNCF)": ("int8.xml", "f32"),
}
CT2 = "ct2"


def padded(engine: Engine, texts: Sequence[str], budget: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Row numbers and padded batches, longest texts first, at most ``budget`` real tokens each."""
    prompt = engine.conventions.default_prompt
    tokens = engine.tokenizer([prompt + text for text in texts])
    for rows in plan(tokens.lengths, budget):
        lengths = tokens.lengths[rows]
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        borders = zip(tokens.offsets[rows], tokens.offsets[rows + 1], strict=True)
        ids[mask] = np.concatenate([tokens.ids[start:end] for start, end in borders])
        yield rows, (ids, mask.astype(np.int64))


def contender(engine: Engine, name: str, run: Run, budget: int) -> Contender:
    """A contender from a function that runs padded batches."""

    def embed(texts: list[str]) -> np.ndarray:
        out = np.empty((len(texts), engine.backend.width), dtype=np.float32)
        places, batches = zip(*padded(engine, texts, budget), strict=True)
        for rows, vectors in zip(places, run(batches), strict=True):
            out[rows] = vectors
        return out

    return Contender(name, embed, before=engine.tokenizer.forget)


def convert(engine: Engine, tuning: list[str], scratch: Path) -> None:
    """Write the model in the format of every installed library.

    Args:
        engine: the model, on the torch backend.
        tuning: calibration texts, none of which is timed.
        scratch: an empty folder.
    """
    if find_spec("openvino"):
        _for_openvino(engine, tuning, scratch)
    config = encoder_config(read_json(engine.folder / "config.json"), engine.folder)
    if find_spec("ctranslate2") and isinstance(config, BertConfig):  # no ModernBERT there
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(engine.folder)).convert(str(scratch / CT2))


def openers(scratch: Path) -> dict[str, Callable[[], Run]]:
    """Name of a contender -> function that loads the model that ``convert`` wrote."""
    found: dict[str, Callable[[], Run]] = {}
    for suffix, streams in (("", 1), (" in streams", torch.get_num_threads())):
        for name, (file, precision) in OPENVINO.items():
            if (scratch / file).exists() and (precision == "f32" or _multiplies_bf16()):
                found[name + suffix] = partial(_openvino, scratch / file, precision, streams)
        if (scratch / CT2).exists():
            for precision in ("float32", "int8"):
                name = f"CTranslate2 {precision}{suffix}"
                found[name] = partial(_ctranslate2, scratch / CT2, precision, streams)
    return found


def _for_openvino(engine: Engine, tuning: list[str], scratch: Path) -> None:
    import openvino

    assert isinstance(engine.backend, Packed)
    product = Product("embedding", (engine.backend.layers,), "mean")
    export(engine.folder, engine.backend, product, "fp32", scratch / "onnx")
    if not find_spec("nncf"):
        return
    import nncf

    samples = [
        dict(zip((IDS, MASK), batch, strict=True))
        for _, batch in padded(engine, tuning[:CALIBRATION], 256)
    ]
    quantised = nncf.quantize(
        openvino.Core().read_model(scratch / "onnx" / FILE),
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
    )
    openvino.save_model(quantised, scratch / "int8.xml", compress_to_fp16=False)


@cache
def _multiplies_bf16() -> bool:
    """Whether the processor has instructions for bf16; OpenVINO then uses them by default."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _openvino(file: Path, precision: str, streams: int) -> Run:
    import openvino

    hint = "LATENCY" if streams == 1 else "THROUGHPUT"
    settings = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": precision}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file), "CPU", settings)

    idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()
    for _ in range(streams):
        idle.put(compiled.create_infer_request())
    # In OpenVINO 2026.4, two threads that are the first to infer can wait for each other for ever.
    single = np.ones((1, 1), dtype=np.int64)
    compiled.create_infer_request().infer({IDS: single, MASK: single})

    def one(batch: Batch) -> np.ndarray:
        request = idle.get()
        try:
            return request.infer(dict(zip((IDS, MASK), batch, strict=True)))[0].copy()
        finally:
            idle.put(request)

    return partial(_in_streams, one, streams)


def _ctranslate2(folder: Path, precision: str, streams: int) -> Run:
    import ctranslate2

    threads = max(1, torch.get_num_threads() // streams)
    settings = {"inter_threads": streams, "intra_threads": threads} if streams > 1 else {}
    encoder = ctranslate2.Encoder(str(folder), compute_type=precision, **settings)

    def one(batch: Batch) -> np.ndarray:
        ids, mask = batch
        rows = [row[:length].tolist() for row, length in zip(ids, mask.sum(axis=1), strict=True)]
        states = np.array(encoder.forward_batch(rows).last_hidden_state)
        mean = (states * mask[:, :, None]).sum(axis=1)  # a sum is enough: normalised next
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    return partial(_in_streams, one, streams)


def _in_streams(
    one: Callable[[Batch], np.ndarray], streams: int, batches: Iterable[Batch]
) -> list[np.ndarray]:
    with ThreadPoolExecutor(streams) as pool:
        return list(pool.map(one, batches))
