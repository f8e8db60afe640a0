"""The C++ encoder: against its references in torch, in other company, and where it is refused."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from instruction_paths import missing

from xtremely.engine.backends.native import encoder
from xtremely.engine.backends.native.encoder import TokenChunk, chunks, panels
from xtremely.engine.backends.native.library import library
from xtremely.engine.backends.select import open_backend
from xtremely.engine.models.ops import TORCH
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import collate
from xtremely.engine.text.tokenizer import Tokenizer, Tokens
from xtremely.kernels.guard import InputError, UsageError

CPU = torch.device("cpu")
runs_here = pytest.mark.skipif(bool(missing()), reason=missing())
SIZES = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 160}


def batch_of(folder, texts, most=64):
    tokens = Tokenizer(folder, most)(texts, most)
    return collate(tokens, np.arange(len(tokens)))


@runs_here
@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("bert", {}),
        ("xlm-roberta", {}),
        ("distilbert", {"hidden_dim": 160}),
        ("electra", {"embedding_size": 24}),
        ("rembert", {"input_embedding_size": 24}),
        *(("modernbert", {"local_attention": tokens}) for tokens in (2, 16, 40, 128)),
        ("modernbert", {"mlp_bias": True, "attention_bias": True, "norm_bias": True}),
    ],
)
@pytest.mark.parametrize("changes", [{}, {"hidden_size": 192, "intermediate_size": 992}])
def test_fp32_is_torchs_at_every_layer(make_tiny, sentences, family, more, changes):
    """Heads of 32 and 96, products in several parts, sequences of 1 to 64 tokens; near fp64."""
    folder = make_tiny(family, **{**SIZES, **changes, **more})
    batch = batch_of(folder, [*sentences, " ".join(sentences)])
    encoder, plain = (open_backend(folder, name, CPU, "fp32") for name in ("native", "torch"))
    assert (encoder.name, encoder.implementation, encoder.precision) == ("native", "packed", "fp32")
    layers = range(plain.layers + 1)
    found, expected = (one.hidden(batch, layers) for one in (encoder, plain))
    exact = plain.encoder.double()(batch, layers, TORCH)
    assert {*found} == {*layers}
    for layer in layers:
        ours, theirs = ((one[layer] - exact[layer]).abs().max() for one in (found, expected))
        assert ours <= 2 * theirs + 1e-6, layer


@runs_here
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_only_what_is_wanted(make_tiny, sentences, family):
    folder = make_tiny(family, **SIZES)
    batch = batch_of(folder, sentences)
    backend = open_backend(folder, "native", CPU, "fp32")
    everything = backend.hidden(batch, [0, 1, 2, 3])
    for wanted in ([0], [1], [0, 2]):
        found = backend.hidden(batch, wanted)
        assert {*found} == {*wanted}
        for layer, state in found.items():
            assert torch.equal(state, everything[layer])


@runs_here
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_int8_is_its_reference(make_tiny, sentences, family):
    """The same whole numbers but for roundings that fall the other way."""
    folder = make_tiny(family, **SIZES, initializer_range=0.05)
    batch = batch_of(folder, [*sentences, " ".join(sentences)])
    found, reference = (open_backend(folder, name, CPU, "int8") for name in ("native", "torch"))
    plain, exact = (open_backend(folder, name, CPU, "fp32") for name in ("native", "torch"))
    layers = range(reference.layers + 1)
    found, reference, exact = (one.hidden(batch, layers) for one in (found, reference, exact))
    assert torch.equal(found[0], plain.hidden(batch, [0])[0])
    assert torch.equal(reference[0], exact[0])
    for layer in layers[1:]:
        apart = (found[layer] - reference[layer]).norm() / (reference[layer] - exact[layer]).norm()
        assert apart < 0.3  # of what rounding costs
        assert F.cosine_similarity(found[layer], exact[layer], dim=1).min() > 0.999


@runs_here
@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"ids": [2, 60, 3]}, "ids from 2 to 60 do not fit a table of 60"),
        ({"ids": [2, -1, 3]}, "ids from -1 to 3"),
        ({"types": [0, 1, 2]}, "ids from 0 to 2 do not fit a table of 2"),
    ],
)
def test_ids_beyond_a_table_are_refused(make_tiny, wrong, complaint):
    """They would be read from other memory."""
    backend = open_backend(make_tiny("bert", **SIZES, vocab_size=60), "native", CPU, "fp32")
    ids, types = (np.array(wrong.get(name, [0, 0, 0])) for name in ("ids", "types"))
    batch = collate(Tokens(ids, types, np.array([0, 3]), 0), np.arange(1))
    with pytest.raises(InputError, match=complaint):
        backend.hidden(batch, [0])


@runs_here
@pytest.mark.parametrize(
    ("family", "precision"), [("bert", "fp32"), ("bert", "int8"), ("modernbert", "fp32")]
)
def test_a_sentence_has_its_own_result_to_the_bit(make_tiny, sentences, family, precision):
    engine = Engine.load(str(make_tiny(family, **SIZES)), backend="native", precision=precision)
    together = engine.embed(sentences)
    alone = np.concatenate([engine.embed([one]) for one in sentences])
    np.testing.assert_array_equal(together, alone)


@runs_here
def test_threads_do_not_matter(make_tiny, sentences):
    engine = Engine.load(str(make_tiny("bert", **SIZES)), backend="native")
    texts = sentences * 20
    expected = engine.embed(texts)
    threads = torch.get_num_threads()
    try:
        for other in (1, 2, 3):
            torch.set_num_threads(other)
            np.testing.assert_array_equal(engine.embed(texts), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("lengths", [[7] * 300, [500, 20, 20, 1], [3], [0, 4, 0], []])
def test_parts_hold_every_sequence_once(lengths, threads):
    made = [*chunks(lengths, threads)]
    borders = np.concatenate([[0], np.cumsum(lengths)])
    assert [n for part in made for n in range(part.first, part.first + part.count)] == [
        *range(len(lengths))
    ]
    assert all(part.token == borders[part.first] for part in made)
    sizes = np.diff([*(part.token for part in made), sum(lengths)]) if made else []
    assert all(a >= b for a, b in itertools.pairwise(sizes)) or 500 in lengths
    assert all(size < encoder.CHUNK_TOKENS + max(lengths) for size in sizes)
    assert all(size >= encoder.MIN_CHUNK_TOKENS for size in sizes[:-1])
    assert made or not lengths


def test_parts_by_hand():
    # two threads: of 1,200 tokens 288 at first, then quarters of 910, 680, 510, 380, 280 and 210
    found = [*chunks([10] * 120, 2)]
    assert found[:3] == [TokenChunk(0, 29, 0), TokenChunk(29, 23, 290), TokenChunk(52, 17, 520)]
    assert [part.count for part in found] == [29, 23, 17, 13, 10, 7, 6, 5, 5, 5]


def test_panels_by_hand():
    weight = torch.arange(4 * 2.0).view(4, 2)
    found = panels(weight, 2)
    assert found.flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    found = panels(torch.arange(2 * 8).view(2, 8).to(torch.int8), 2)
    assert found.flatten().tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]


@runs_here
@pytest.mark.parametrize(
    ("family", "changes", "precision", "complaint"),
    [
        ("bert", {"num_attention_heads": 4}, "fp32", "takes multiples of .* but heads are 16 wide"),
        ("bert", {"intermediate_size": 100}, "int8", "feed-forward layers are 100 wide"),
        ("modernbert", {"num_attention_heads": 4}, "fp32", "but heads are 16 wide"),
        ("distilbert", {}, "int8", "int8 on the native backend is for bert, .*backend onnx"),
        ("ernie", {}, "fp32", "is for bert, .*modernbert, .*, not 'ernie'"),
    ],
)
def test_what_does_not_fit(make_tiny, family, changes, precision, complaint):
    folder = make_tiny(family, **({} if family == "ernie" else {**SIZES, **changes}))
    if "heads" in complaint and library().columns() == 16:
        changes = {"num_attention_heads": 8}
        folder, complaint = make_tiny(family, **{**SIZES, **changes}), "heads are 8 wide"
    with pytest.raises(InputError, match=complaint):
        open_backend(folder, "native", CPU, precision)


@runs_here
def test_other_precisions_and_devices_are_refused(make_tiny):
    folder = make_tiny("bert", **SIZES)
    with pytest.raises(UsageError, match="'bf16' does not run on the native backend; legal: fp32"):
        open_backend(folder, "native", CPU, "bf16")
    with pytest.raises(InputError, match="native backend computes on the CPU, --device is cuda"):
        open_backend(folder, "native", torch.device("cuda"), "fp32")


def test_what_auto_takes(make_tiny, monkeypatch):
    """C++ in fp32 and int8 where it runs and fits, else torch and the exported file."""
    pytest.importorskip("onnxruntime")
    fitting, odd = make_tiny("bert", **SIZES), make_tiny("bert", hidden_size=72)
    modern = make_tiny("modernbert", **SIZES)
    taken = {}
    for reason in (None, "needs a C++ compiler"):
        monkeypatch.setattr(
            "xtremely.engine.backends.select.unavailable_reason", lambda device, r=reason: r
        )
        monkeypatch.setattr(
            "xtremely.engine.backends.select.unsupported_reason",
            lambda c, precision: None if c.hidden == 64 else "odd",
        )
        monkeypatch.setattr(
            "xtremely.engine.backends.select.Packed", lambda folder, config, name, *_: Named(name)
        )
        for name, folder in (("fitting", fitting), ("odd", odd), ("modern", modern)):
            for precision in ("fp32", "int8", "bf16"):
                backend = open_backend(folder, "auto", CPU, precision).name
                taken[reason is None, name, precision] = backend
    assert {key for key, name in taken.items() if name == "native"} == {
        (True, "fitting", "fp32"),
        (True, "fitting", "int8"),
        (True, "modern", "fp32"),
        (True, "modern", "int8"),
    }
    for (_, _, precision), name in taken.items():
        if name != "native":
            assert name == ("onnx" if precision == "int8" else "torch")


class Named:
    def __init__(self, name):
        self.name = name
