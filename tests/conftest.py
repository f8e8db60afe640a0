"""Fixtures shared by all tests: tiny random models, the packaged model, no network."""

from __future__ import annotations

import contextlib
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of Hugging Face's libraries

import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from process_settings import put_back, snapshot

from xtremely.engine.hub.bundled import build_tokenizer
from xtremely.engine.runtime import Engine
from xtremely.eval.data.readers import read_lines

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton

with contextlib.suppress(ImportError):  # a machine that only runs the kernels' tests has none
    from hypothesis import Phase, settings

    # No shrinking: of a failing test it would run hundreds more examples, each in interpreted code.
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    settings.register_profile("shared machine", deadline=None, phases=phases)
    settings.load_profile("shared machine")

MINI = Path(__file__).parent.parent / "eval" / "tasks" / "mini"
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
TINY = {
    "vocab_size": 2000,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 130,
    "pad_token_id": 1,
    "initializer_range": 0.3,  # large enough that layers differ visibly
}


signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background has none

BEFORE = pytest.StashKey[dict]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    """Remember the process's settings before anything of a test runs, its fixtures included."""
    item.stash[BEFORE] = snapshot()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    """A test that leaves settings changed has failed; the next one has them as they were."""
    try:
        done = yield
    finally:
        left = put_back(item.stash[BEFORE])
    if left:
        pytest.fail(f"leaves settings of the process changed: {'; '.join(left)}", pytrace=False)
    return done


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def steady_products(monkeypatch):
    """Without a GPU: the interpreter's products are numpy's, whose rounding of a row depends on
    where in the matrix the row stands. In fp64, rounded once, it does not.
    """
    product = np.matmul

    def steady(a, b, dtype):
        return product(a.astype(np.float64), b.astype(np.float64)).astype(dtype)

    if not torch.cuda.is_available():
        monkeypatch.setattr(np, "matmul", steady)


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """A few dozen real sentences in many scripts, of lengths from one word up."""
    codes = ("en", "zh", "ar", "th", "ka")
    texts = [line for code in codes for line in read_lines(MINI / f"{code}.txt")[:8]]
    return [*texts, "x", "", "one " * 60, "ok"]


def save_tokenizer(folder: Path) -> None:
    """A fast tokenizer whose pieces are the mini suite's characters."""
    characters = sorted({c for path in MINI.glob("*.txt") for c in path.read_text("utf-8")})
    pieces = [(text, 0.0) for text in SPECIALS] + [(c, -5.0) for c in characters if c != "▁"]
    tokenizer = build_tokenizer([*pieces, ("▁", -5.0), ("<mask>", 0.0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",'
        ' "unk_token": "<unk>", "pad_token": "<pad>", "model_max_length": 128}'
    )


def save_tiny(folder: Path, kind: str, auto: str = "AutoModel", **changes) -> Path:
    """A tiny random model of a transformers architecture, as an ordinary folder."""
    import transformers

    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **{**TINY, **changes})
    model = getattr(transformers, auto).from_config(config)
    for parameter in model.parameters():  # biases and norms away from their trivial start
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory):
    """Makes tiny random models: architecture, kind of model and changed settings in, folder out."""

    def make(kind: str, auto: str = "AutoModel", **changes) -> Path:
        return save_tiny(tmp_path_factory.mktemp("tiny") / kind, kind, auto, **changes)

    return make


@pytest.fixture(scope="session")
def tiny_bert(make_tiny) -> Path:
    """A tiny random BertModel folder."""
    return make_tiny("bert")


@pytest.fixture(scope="session")
def e5() -> Engine:
    """The packaged default model."""
    return Engine.load("e5-small-4bit")
