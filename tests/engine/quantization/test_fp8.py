"""The encoder in fp8: near fp32, the same on both backends, weights rounded as stated."""

import numpy as np
import pytest
import torch

from xtremely.engine.backends.select import open_backend
from xtremely.engine.models.ops import TORCH, TRITON
from xtremely.engine.quantization.fp8 import Fp8Linear
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import collate, plan
from xtremely.kernels.guard import InputError
from xtremely.kernels.quantise import quantise_ref

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def folder(make_tiny):
    """A tiny model whose heads have a size that the kernels take, its weights not too wild."""
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    return make_tiny("bert", **sizes, initializer_range=0.08)


def load(folder, backend, precision):
    return Engine.load(str(folder), backend=backend, device=DEVICE, precision=precision)


def states(engine, texts):
    tokens = engine.tokenizer(texts)
    batch = collate(tokens, plan(tokens.lengths, 10_000)[0]).to(engine.backend.device)
    return engine.backend.hidden(batch, [0, 1, 2])


def test_the_packaged_model_keeps_its_embeddings(sentences):
    exact, quantize = (
        Engine.load("e5-small-4bit", backend="torch", device="cpu", precision=precision).embed(
            sentences[:24]
        )
        for precision in ("fp32", "fp8")
    )
    cosines = (exact * quantize).sum(axis=1)
    assert cosines.min() > 0.995
    centred = [vectors - vectors.mean(axis=0) for vectors in (exact, quantize)]
    norms = [np.linalg.norm(vectors, axis=1) for vectors in centred]
    assert ((centred[0] * centred[1]).sum(axis=1) / (norms[0] * norms[1])).min() > 0.97


def test_triton_gives_what_torch_gives(folder, sentences):
    texts = [sentences[0], "x", "one " * 18]
    theirs, ours = (states(load(folder, name, "fp8"), texts) for name in ("torch", "triton"))
    for layer in (0, 1, 2):
        scale = theirs[layer].float().abs().max()
        assert (ours[layer].float() - theirs[layer].float()).abs().max() < 0.05 * scale
        difference = (ours[layer].float() - theirs[layer].float()).pow(2).mean().sqrt()
        assert difference < 0.01 * scale


def test_it_is_fp8_that_runs(folder, sentences):
    """Nearer to fp32 than noise, but not as near as fp16."""
    exact, half, eight = (
        states(load(folder, "torch", precision), sentences[:8])[2].float()
        for precision in ("fp32", "fp16", "fp8")
    )
    assert 5 * (half - exact).abs().mean() < (eight - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.parametrize("ops", [TORCH, TRITON], ids=["torch", "triton"])
def test_a_product_with_zeros_and_gelu_is_zeros(ops):
    """A pruned layer's weights and biases are zeros, and so is the bound of its values."""
    linear = torch.nn.utils.skip_init(torch.nn.Linear, 16, 8)
    for parameter in linear.parameters():
        torch.nn.init.zeros_(parameter)
    rows = torch.randn(3, 16, device=DEVICE)
    pruned = Fp8Linear(linear, torch.float16).to(DEVICE)
    values, scales = pruned.gelu(quantise_ref(rows), rows.norm(dim=1), ops)
    assert values.float().tolist() == [[0.0] * 8] * 3
    assert scales.tolist() == [2.0**-126] * 3


def test_weights_are_rounded_once_from_fp32(folder):
    place = torch.device(DEVICE)
    plain = open_backend(folder, "torch", place, "fp32").encoder.layers[1].up.weight
    quantize = open_backend(folder, "torch", place, "fp8").encoder.layers[1].up
    values, scale = quantise_ref(plain)
    assert torch.equal(quantize.weight.float(), values.float())
    assert torch.equal(quantize.scale, scale)
    assert quantize.bias.dtype == torch.float16


def test_a_sentence_has_the_same_bits_in_any_company(folder, sentences, steady_products):
    engine = load(folder, "triton", "fp8")
    texts = [sentences[0], "x", sentences[12]]
    together = engine.embed(texts)
    alone = np.concatenate([engine.embed([text]) for text in texts])
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("kind", ["modernbert", "electra"])
def test_other_families_are_refused(make_tiny, kind):
    with pytest.raises(InputError, match="does not run in fp8"):
        load(make_tiny(kind), "torch", "fp8")
