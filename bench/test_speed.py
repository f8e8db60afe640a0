"""Speed regressions under pytest-benchmark, one contender at a time.

    python -m pytest bench --benchmark-autosave
    python -m pytest bench --benchmark-compare --benchmark-compare-fail=median:20%
    python -m pytest bench -k exact

Needs no data. Contenders run one after the other here, so compare each line only with its own past.
To compare contenders, use ``bench.encoders``, ``bench.retrieval`` and ``bench.gpu``, whose rounds
are interleaved.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xtremely.bench import cpu_peers, retrieval_peers, workloads
from xtremely.bench.contenders import makers
from xtremely.bench.harness import Contender
from xtremely.engine.runtime import Engine
from xtremely.kernels.configurations import architecture
from xtremely.kernels.spec import all_kernels
from xtremely.retrieval import exact

MODEL = "e5-small-4bit"
SENTENCES = 200
BUDGET = 1024  # tokens of a batch
EMBEDDERS = (
    "xtremely packed",
    "xtremely native",
    "xtremely native int8",
    "xtremely onnx fp32",
    "xtremely onnx int8",
    "transformers sdpa sorted",
    "sentence-transformers default",
    "OpenVINO fp32",
    "OpenVINO int8 (NNCF)",
    "CTranslate2 float32",
    "CTranslate2 int8",
    "OpenVINO fp32 in streams",
    "OpenVINO int8 (NNCF) in streams",
    "CTranslate2 float32 in streams",
    "CTranslate2 int8 in streams",
)
SEARCHED = (2_048, 20_000)
KERNELS = list(all_kernels())


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The default model in plain torch."""
    return Engine.load(MODEL, backend="torch", device="cpu")


@pytest.fixture(scope="module")
def workload() -> workloads.Workload:
    """Sentences of many languages."""
    return workloads.tatoeba(None, SENTENCES)


@pytest.fixture(scope="module")
def converted(engine, workload, tmp_path_factory) -> Path:
    """The model in other libraries' formats; converting it takes minutes."""
    folder = tmp_path_factory.mktemp("peers")
    cpu_peers.convert(engine, workload.tuning, folder)
    return folder


@pytest.mark.parametrize("name", EMBEDDERS)
def test_sentences(benchmark, name, engine, workload, request):
    """Embedding sentences, tokenisation included; reports the median tokens per second."""
    contender = _embedder(name, engine, request)
    tokens = int(engine.tokenizer([f"query: {text}" for text in workload.texts]).lengths.sum())

    def before() -> tuple[tuple[list[str]], dict[str, Any]]:
        contender.before()
        return (workload.texts,), {}

    vectors = benchmark.pedantic(contender.embed, setup=before, rounds=5, warmup_rounds=1)
    benchmark.extra_info["tokens_per_second"] = round(tokens / benchmark.stats.stats.median)
    assert vectors.shape == (len(workload.texts), engine.backend.width)


def _embedder(name: str, engine: Engine, request: pytest.FixtureRequest) -> Contender:
    needs = "converted" if name.startswith(("OpenVINO", "CTranslate2")) else "tmp_path"
    made = makers(MODEL, engine, request.getfixturevalue(needs))
    if name not in made:
        pytest.skip("not installed")
    return made[name](BUDGET)


@pytest.mark.parametrize("name", ["one direction", "both directions", "faiss IndexFlatIP"])
def test_exact_search(benchmark, name):
    """The 4 nearest of 20,000 vectors for 2,048 queries, in 384 dimensions."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((rows, 384), dtype=np.float32) for rows in SEARCHED)
    cpu = torch.device("cpu")
    found: dict[str, Callable[[], Any]] = {
        "one direction": partial(exact.search, x, y, 4, cpu),
        "both directions": partial(exact.search_both, x, y, 4, device=cpu),
        **retrieval_peers.exact_contenders(x, y, 4),
    }
    ids = retrieval_peers.ids_of(benchmark.pedantic(found[name], rounds=5, warmup_rounds=1))
    assert ids is not None and ids.shape == (len(x), 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", KERNELS)
def test_kernel(benchmark, name):
    """A kernel on inputs of its first shape class in bf16, including the wait for the device."""
    kernel, device = all_kernels()[name], torch.device("cuda")
    if not kernel.launches(architecture(device)):
        pytest.skip("does not run on this kind of GPU")
    tuning = next(one for one in kernel.tunings() if one.precision == torch.bfloat16)
    inputs = kernel.make_inputs(tuning.precision, device, **tuning.case)

    def call() -> None:
        kernel.run(**inputs)
        torch.cuda.synchronize()

    benchmark.pedantic(call, rounds=50, warmup_rounds=3)
