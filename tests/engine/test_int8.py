"""int8 on torch: exact products, what lies between them, and whole encoders."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xtremely.engine import int8
from xtremely.engine.backend import open_backend
from xtremely.engine.batch import collate
from xtremely.engine.int8 import PLAIN, Int8Linear, Rows, attended, finished, gelu, rows_of, widened
from xtremely.engine.rounding import rounded_in_pairs
from xtremely.engine.runtime import Engine
from xtremely.engine.tokenize import Tokenizer
from xtremely.kernels.attention import attention_ref
from xtremely.kernels.guard import InputError
from xtremely.kernels.packing import Layout

CPU = torch.device("cpu")
runs_here = pytest.mark.skipif(bool(int8.lacking(CPU)), reason=f"int8 {int8.lacking(CPU)}")


def linear(outputs, inputs, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(inputs, outputs).requires_grad_(False)


def test_as_many_steps_as_no_two_neighbours_overflow():
    rng = np.random.default_rng(0)
    weights = np.concatenate(
        [
            rng.normal(size=(50, 96)),
            np.ones((1, 96)),  # every pair at its most: half of 127
            np.tile([1.0, -1.0], (1, 48)),  # neighbours of two signs take each other off
            np.zeros((1, 96)),
        ]
    ).astype("f4")
    values, scale = rounded_in_pairs(weights)
    assert (np.abs(values * scale - weights) <= scale / 2 + 1e-6).all()
    wide = values.astype(int).reshape(len(values), -1, 2)
    reach = np.maximum(np.maximum(wide, 0).sum(axis=2), -np.minimum(wide, 0).sum(axis=2))
    assert (255 * reach < 2**15).all() and values.dtype == np.int8
    assert np.abs(values).max(axis=1)[50:].tolist() == [64, 127, 0]
    assert np.abs(values).max(axis=1)[:50].mean() > 85  # ordinary rows lose little
    assert rounded_in_pairs(weights[:, :5])[0].shape == (len(weights), 5)


@runs_here
@pytest.mark.parametrize("extreme", [False, True])
def test_products_are_exact(extreme):
    """Sums of whole numbers, also where every byte is at its most."""
    module = Int8Linear(linear(40, 96))
    torch.manual_seed(1)
    values = torch.randint(0, 2, (33, 96)) * 255 if extreme else torch.randint(0, 256, (33, 96))
    weights, scale = rounded_in_pairs(linear(40, 96).weight.numpy())
    expected = (values.double() @ torch.from_numpy(weights).double().T) * torch.from_numpy(
        scale[:, 0]
    )
    found = module(Rows(values.to(torch.uint8), torch.ones(33, 1)))
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-4)


@runs_here
@pytest.mark.parametrize("lifted", [False, True])
def test_a_linear_layer_is_that_of_the_rounded_tokens(lifted):
    plain, peak = linear(40, 96), torch.rand(96) + 0.1
    module = Int8Linear(plain, None if lifted else peak, lifted)
    x = F.gelu(torch.randn(33, 96)) if lifted else torch.randn(33, 96) * peak
    if lifted:
        values, scale = widened(x * 0, torch.ones(33, 1), torch.zeros(96), torch.zeros(96))
        assert values.float().mul(scale).sub(0.17).abs().max() < 1e-3  # GELU of zeros
        scale = (x + 0.17).amax(dim=1, keepdim=True) / 255
        values = ((x + 0.17) / scale + 0.5).to(torch.uint8)
        seen = values * scale - 0.17
    else:
        values, scale = rows_of(x, module.reader)
        seen = (values.float() - 128) * scale / module.reader
    assert ((seen - x).abs() <= 0.501 * scale / module.reader).all()
    found = finished(module(Rows(values, scale)), scale, module.taken, module.bias)
    # what is left is the rounding of weights, at most half a step each
    step = rounded_in_pairs((plain.weight / module.reader).numpy())[1][:, 0]
    bound = (seen * module.reader).abs().sum(dim=1, keepdim=True) * torch.from_numpy(step) / 2
    assert ((found - plain(seen)).abs() <= bound + 1e-3).all()
    assert (found - plain(x)).norm() < 0.03 * plain(x).norm()


def test_gelu_without_the_error_function():
    x = torch.linspace(-12, 12, 100_001)
    assert (gelu(x) - F.gelu(x.double()).float()).abs().max() < 1e-4


def test_attention_without_products():
    qkv = torch.randn(5 * 7, 3 * 4 * 8)
    expected = attention_ref(qkv, Layout([7] * 5, CPU), 4)
    found = attended(qkv.view(5, 7, 3, 4, 8)).reshape(5 * 7, 32)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@runs_here
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_an_encoder_is_near_its_fp32(make_tiny, sentences, family):
    """Compiled as well as plain, at every layer, for short sequences and long ones."""
    folder = make_tiny(family, initializer_range=0.05)
    backend, teacher = (open_backend(folder, "torch", CPU, p) for p in ("int8", "fp32"))
    tokens = Tokenizer(folder, 64)([*sentences, " ".join(sentences)], 64)
    batch = collate(tokens, np.arange(len(tokens)))
    layers = range(teacher.layers + 1)
    expected, found = (one.hidden(batch, layers) for one in (teacher, backend))
    assert not torch.equal(found[1], expected[1])
    backend.encoder.steps = PLAIN
    plain = backend.hidden(batch, layers)
    for layer in layers:
        scores = F.cosine_similarity(found[layer], expected[layer], dim=1)
        assert scores.min() > 0.999
        # a rounding that falls the other way is a step of one value
        torch.testing.assert_close(found[layer], plain[layer], rtol=0, atol=0.05)


@runs_here
def test_a_sentence_has_its_own_result(make_tiny, sentences):
    engine = Engine.load(str(make_tiny("bert")), backend="torch", device="cpu", precision="int8")
    assert (engine.backend.name, engine.backend.precision) == ("torch", "int8")
    together = engine.embed(sentences)
    alone = np.concatenate([engine.embed([one]) for one in sentences])
    np.testing.assert_allclose(together, alone, atol=2e-3)


@runs_here
def test_without_a_compiler_it_runs_and_says_so(make_tiny, sentences, monkeypatch):
    folder = make_tiny("bert")
    expected = open_backend(folder, "torch", CPU, "int8")

    def none(*_):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda step: none)
    with pytest.warns(UserWarning, match=r"without torch.compile.*\(No working C\+\+ compiler"):
        backend = open_backend(folder, "torch", CPU, "int8")
    assert backend.encoder.steps is PLAIN
    tokens = Tokenizer(folder, 64)(sentences, 64)
    batch = collate(tokens, np.arange(len(tokens)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = backend.hidden(batch, [1])[1]
    torch.testing.assert_close(found, expected.hidden(batch, [1])[1], rtol=0, atol=0.05)


def test_what_auto_takes(make_tiny, monkeypatch):
    """torch for the BERT family where it is fast, else the exported file."""
    pytest.importorskip("onnxruntime")
    taken = {
        (lacking, compiler, family): _auto(make_tiny(family), lacking, compiler, monkeypatch)
        for lacking in ("", "needs another processor")
        for compiler in (True, False)
        for family in ("bert", "modernbert")
    }
    assert {key for key, name in taken.items() if name == "torch"} == {("", True, "bert")}
    assert {*taken.values()} == {"torch", "onnx"}


def _auto(folder, lacking, compiler, monkeypatch):
    monkeypatch.setattr(int8, "lacking", lambda device: lacking)
    monkeypatch.setattr(int8, "compiles", lambda: compiler)
    monkeypatch.setattr(int8.Int8Bert, "compile", lambda *_: None)
    return open_backend(folder, "auto", CPU, "int8").name


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"machine": "aarch64"}, "int8 on the torch backend needs a processor of the x86-64 line"),
        ({"onednn": False}, "needs a torch with oneDNN; use --backend onnx"),
        ({"family": "modernbert"}, "int8 on the torch backend is for bert"),
        ({"device": "cuda"}, "computes on the CPU, --device is cuda; use --backend onnx, or bf16"),
        ({"bound": 1e-6}, "in int8 its states differ by .* use fp32"),
    ],
)
def test_what_does_not_run(make_tiny, monkeypatch, changes, complaint):
    monkeypatch.setattr(int8.platform, "machine", lambda: changes.get("machine", "x86_64"))
    there = changes.get("onednn", True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: there)
    monkeypatch.setattr("xtremely.engine.backend.MOST_ROUNDED", changes.get("bound", 0.2))
    monkeypatch.setattr(int8.Int8Bert, "compile", lambda *_: None)
    device = torch.device(changes.get("device", "cpu"))
    with pytest.raises(InputError, match=complaint):
        open_backend(make_tiny(changes.get("family", "bert")), "torch", device, "int8")
