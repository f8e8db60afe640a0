"""What every backend that runs the packed encoder must do, tested on each."""

import numpy as np
import pytest
import torch

from xtremely.engine.backends.packed import OPS
from xtremely.engine.backends.select import open_backend
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import collate, plan
from xtremely.kernels.guard import InputError

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
FAMILIES = {
    "bert": {},
    "modernbert": {"local_attention": 20},
    "deberta-v2": {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_buckets": 16},
    "mpnet": {},
    "xlm-roberta-xl": {},
}


@pytest.fixture(scope="module")
def kernel_model(make_tiny, request):
    """A tiny model whose heads have a size that the kernels take, of each family."""
    return make_tiny(request.param, **SIZES, **FAMILIES[request.param])


@pytest.fixture(scope="module")
def few(sentences):
    """Lengths below, at and above the kernels' tiles, with the order mixed."""
    return [sentences[0], "x", "one " * 18, sentences[12], ""]


@pytest.mark.parametrize("kernel_model", FAMILIES, indirect=True)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_triton_gives_every_hidden_state_that_torch_gives(kernel_model, few, precision):
    engines = [
        Engine.load(str(kernel_model), backend=name, device=DEVICE, precision=precision)
        for name in ("torch", "triton")
    ]
    tokens = engines[0].tokenizer(few)
    batch = collate(tokens, plan(tokens.lengths, 10_000)[0]).to(engines[0].backend.device)
    theirs, ours = (engine.backend.hidden(batch, [0, 1, 2]) for engine in engines)
    limit = 1e-4 if precision == "fp32" else 1e-2
    for layer in (0, 1, 2):
        difference = (ours[layer].float() - theirs[layer].float()).abs().max()
        assert difference < limit * theirs[layer].float().abs().max()
    assert engines[1].backend.name == "triton"


@pytest.mark.parametrize(
    ("kernel_model", "pooling"),
    [("bert", "cls"), ("modernbert", "mean")],
    indirect=["kernel_model"],
)
def test_a_sentence_has_the_same_bits_in_any_company(kernel_model, few, pooling, steady_products):
    """Batch invariance of the Triton backend: alone, in a batch, in another order."""
    engine = Engine.load(str(kernel_model), backend="triton", device=DEVICE, precision="fp16")
    together = engine.embed(few, pooling=pooling)
    alone = np.concatenate([engine.embed([text], pooling=pooling) for text in few])
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(engine.embed(few[::-1], pooling=pooling)[::-1], together)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_triton_without_a_gpu_says_so_instead_of_running_something_else(tiny_bert, monkeypatch):
    from triton import knobs

    monkeypatch.setattr(knobs.runtime, "interpret", False)
    with pytest.raises(InputError, match="need a CUDA device.*the torch backend runs everywhere"):
        Engine.load(str(tiny_bert), backend="triton")


def test_triton_does_not_take_an_architecture_that_is_not_packed(make_tiny):
    folder = make_tiny("ernie")
    with pytest.raises(InputError, match="'ernie' has no packed encoder"):
        open_backend(folder, "triton", torch.device(DEVICE), "fp32")


def test_triton_does_not_take_heads_of_a_size_that_no_kernel_has(tiny_bert):
    complaint = "heads have 12 dimensions, Triton .* 32, 64, 96, 128; use --backend torch"
    with pytest.raises(InputError, match=complaint):
        open_backend(tiny_bert, "triton", torch.device(DEVICE), "fp32")


def test_auto_is_a_backend_that_exists(tiny_bert):
    assert Engine.load(str(tiny_bert)).backend.name in OPS
