"""ONNX before and after optimisation: the written graph and the fused one, against torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from xtremely.engine.backends.packed import Packed
from xtremely.engine.backends.select import open_backend
from xtremely.engine.config_json import read_config
from xtremely.engine.models.families import exportable
from xtremely.engine.runtime import Engine
from xtremely.eval.check.finding import Finding
from xtremely.eval.check.sample import Sample
from xtremely.eval.check.states import compare
from xtremely.kernels.guard import InputError

STEPS = ("before optimisation", "after optimisation")
PRECISIONS = ("fp32", "int8")  # fp16 files are for GPUs


def check_onnx(engine: Engine, sample: Sample) -> Iterator[Finding]:
    """Export the model's hidden states and compare both graphs with torch's, in fp32 and int8.

    Figure and limit are those of ``xtremely export``: the root mean square of the differences,
    divided by that of torch's states. A fused graph that differs is not used by the engine, so it
    is reported and does not fail.
    """
    try:
        from xtremely.engine.backends.onnx.export import BOUNDS, attempts
        from xtremely.engine.backends.onnx.outputs import Product
        from xtremely.engine.backends.onnx.verify import ReferenceOutputs

        exportable(read_config(engine.folder), engine.folder)
        reference = open_backend(engine.folder, "torch", torch.device("cpu"), "fp32")
    except (InputError, ImportError) as error:
        yield Finding("onnx", None, remark=str(error))
        return
    assert isinstance(reference, Packed)
    layers = tuple(range(reference.layers + 1))
    product = Product("hidden states", layers, typed=engine.tokenizer.typed)
    reference_outputs = ReferenceOutputs(reference, product, sample.tokens)
    about = {"model": engine.name, "model_hash": engine.model_hash}
    for precision in PRECISIONS:
        try:
            with tempfile.TemporaryDirectory(prefix="xtremely-check-") as folder:
                tried = attempts(reference_outputs, precision, about, Path(folder))
                for step, (agreement, path) in zip(STEPS, tried, strict=True):
                    name, limit = f"onnx {precision}, {step}", BOUNDS[precision]
                    if agreement.difference <= limit:
                        yield Finding(name, True, agreement.difference, limit)
                        continue
                    used = step == STEPS[0]
                    states = dict(enumerate(map(torch.from_numpy, reference_outputs.outputs(path))))
                    expected = dict(enumerate(map(torch.from_numpy, reference_outputs.expected)))
                    where = compare(name, states, expected, sample, precision).where
                    remark = "" if used else "the engine does not use this graph"
                    passed = False if used else None
                    yield Finding(name, passed, agreement.difference, limit, where, remark)
        except InputError as error:
            yield Finding(f"onnx {precision}", False, remark=str(error))
