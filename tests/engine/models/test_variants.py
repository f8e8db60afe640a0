"""Variants of the packed families, against transformers or by hand."""

import json

import numpy as np
import pytest
import torch
import transformers
from instruction_paths import missing
from safetensors.torch import load_file, save_file

from xtremely.engine.backends.select import open_backend
from xtremely.engine.models.activations import ACTIVATIONS, NAMES
from xtremely.engine.models.loading import load
from xtremely.engine.runtime import Engine
from xtremely.engine.text.tokenizer import Tokens
from xtremely.kernels.guard import InputError

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
FIELDS = {"bert": "hidden_act", "xlm-roberta": "hidden_act", "modernbert": "hidden_activation"}
CPU = torch.device("cpu")
LENGTHS = (2, 9, 30)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
YARNED = {"rope_parameters": {"full_attention": {**YARN, "rope_theta": 1000.0}}}


def rows():
    return [[0, *range(5, 3 + length), 2] for length in LENGTHS]


def means(engine):
    """Mean of the last states of each sequence, of length 1."""
    pairs = [(np.array(one, dtype=np.int32), np.zeros(len(one), dtype=np.uint8)) for one in rows()]
    tokens = Tokens.of(pairs)
    vectors, _ = engine.pooled(tokens, layers=[engine.backend.layers], poolings=["mean"])
    return unit(vectors[:, 0, 0])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_transformers(folder):
    """The same by transformers, one text at a time."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = [model(torch.tensor([one])).last_hidden_state[0] for one in rows()]
    return unit(np.stack([one.mean(0).numpy() for one in states]))


@pytest.fixture(scope="module")
def made(make_tiny):
    """Makes a tiny model of a family with an activation, once."""
    folders = {}

    def make(kind, name):
        if (kind, name) not in folders:
            changes = {**SIZES, FIELDS[kind]: name}
            if kind == "modernbert":
                changes["local_attention"] = 8
            folders[kind, name] = make_tiny(kind, **changes)
        return folders[kind, name]

    return make


@pytest.mark.oracle
@pytest.mark.parametrize("backend", ["torch", "onnx", "triton"])
@pytest.mark.parametrize("name", ["gelu_new", "relu", "quick_gelu", "silu"])
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_an_activation_runs_packed_and_equals_transformers(
    made, tmp_path_factory, kind, name, backend
):
    folder = made(kind, name)
    engine = Engine.load(str(folder), backend=backend)
    assert engine.backend.implementation in ("packed", "onnxruntime cpu")
    np.testing.assert_allclose(means(engine), by_transformers(folder), rtol=0, atol=1e-6)


@pytest.mark.oracle
@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("name", ["gelu_fast", "relu", "quick_gelu", "swish"])
@pytest.mark.parametrize("kind", ["xlm-roberta", "modernbert"])
def test_an_activation_runs_in_cpp_and_equals_transformers(made, kind, name):
    engine = Engine.load(str(made(kind, name)))
    assert engine.backend.name == "native"
    np.testing.assert_allclose(means(engine), by_transformers(engine.folder), rtol=0, atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("name", NAMES)
def test_an_activation_is_transformers_of_the_same_name(name):
    from transformers.activations import ACT2FN

    x = torch.linspace(-30, 30, 2001)
    ours = ACTIVATIONS[NAMES[name]]
    torch.testing.assert_close(ours.function(x), ACT2FN[name](x), rtol=1e-5, atol=2e-6)
    if ours.logistic is not None:
        a, b = ours.logistic
        x = x.double()
        again = x * torch.sigmoid(a * x + b * x**3)
        torch.testing.assert_close(again, ACT2FN[name](x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_quantized_products_are_for_gelu_alone(made, precision):
    with pytest.raises(InputError, match=f"{precision} on the torch backend is for .* not silu"):
        open_backend(made("bert", "silu"), "torch", CPU, precision)


def test_int8_of_another_activation_is_left_to_onnx(made):
    assert open_backend(made("bert", "silu"), "auto", CPU, "int8").name == "onnx"


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_cpp_in_int8_is_for_gelu_alone(made):
    with pytest.raises(InputError, match="has no C.. in int8 for silu, only for GELU"):
        open_backend(made("bert", "silu"), "native", CPU, "int8")


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("xlm-roberta", {"hidden_act": "mish"}, "hidden_act 'mish' is not one that packed"),
        ("modernbert", {"hidden_activation": "tanh"}, "hidden_activation 'tanh' is not one"),
        ("modernbert", {"local_attention": 8, **YARNED}, "rope_type 'yarn' of rope_parameters"),
    ],
)
def test_what_is_not_packed_runs_in_transformers_with_a_note(make_tiny, kind, changes, told):
    folder = make_tiny(kind, **SIZES, **changes)
    with pytest.warns(UserWarning, match=f"{told}.*; transformers runs the model, padded"):
        engine = Engine.load(str(folder))
    assert (engine.backend.name, engine.backend.implementation) == ("torch", "transformers")
    np.testing.assert_allclose(means(engine), by_transformers(folder), rtol=0, atol=1e-6)
    for backend, precision in (("onnx", "fp32"), ("native", "fp32"), ("auto", "int8")):
        with pytest.raises(InputError, match=f"{told}.*; use --backend torch in fp32, fp16 or bf"):
            open_backend(folder, backend, CPU, precision)


@pytest.fixture(scope="module")
def by_distance(make_tiny, tmp_path_factory):
    """A tiny model with tables of distances, as transformers 4 saved it."""

    def make(kind, positions):
        folder = make_tiny(kind, **SIZES, max_position_embeddings=40)
        tensors = load_file(folder / "model.safetensors")
        torch.manual_seed(2)
        for layer in (0, 1):
            name = f"encoder.layer.{layer}.attention.self.distance_embedding.weight"
            tensors[name] = torch.randn(79, 32)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        raw = json.loads((folder / "config.json").read_text())
        raw["position_embedding_type"] = positions
        (folder / "config.json").write_text(json.dumps(raw))
        return folder

    return make


def by_hand(folder, positions):
    """Mean of the last states in fp64, one score after the other."""
    t = {
        name: one.double().numpy() for name, one in load_file(folder / "model.safetensors").items()
    }

    def normed(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
        return x * t[f"{name}.weight"] + t[f"{name}.bias"]

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    found = []
    for ids in rows():
        types = t["embeddings.token_type_embeddings.weight"][0]
        x = t["embeddings.word_embeddings.weight"][ids] + types
        x = normed(x, "embeddings.LayerNorm")
        for layer in (0, 1):
            base = f"encoder.layer.{layer}."
            own = f"{base}attention.self."
            table = t[f"{own}distance_embedding.weight"]
            q, k, v = (linear(x, own + name) for name in ("query", "key", "value"))
            mixed = np.zeros_like(x)
            for head in (slice(0, 32), slice(32, 64)):
                for a in range(len(ids)):
                    scores = np.zeros(len(ids))
                    for b in range(len(ids)):
                        apart = table[a - b + 39]
                        scores[b] = q[a, head] @ k[b, head] + q[a, head] @ apart
                        if positions == "relative_key_query":
                            scores[b] += k[b, head] @ apart
                    scores /= np.sqrt(32)
                    weights = np.exp(scores - scores.max())
                    mixed[a, head] = weights / weights.sum() @ v[:, head]
            x = normed(
                x + linear(mixed, f"{base}attention.output.dense"),
                f"{base}attention.output.LayerNorm",
            )
            wide = torch.nn.functional.gelu(
                torch.from_numpy(linear(x, f"{base}intermediate.dense"))
            )
            x = normed(x + linear(wide.numpy(), f"{base}output.dense"), f"{base}output.LayerNorm")
        found.append(x.mean(0))
    return unit(np.stack(found))


@pytest.mark.parametrize("backend", ["auto", "triton"])
@pytest.mark.parametrize("positions", ["relative_key", "relative_key_query"])
def test_relative_positions_are_those_of_the_formula(by_distance, positions, backend):
    folder = by_distance("bert", positions)
    engine = Engine.load(str(folder), backend=backend)
    assert engine.backend.implementation == "packed"
    np.testing.assert_allclose(means(engine), by_hand(folder, positions), rtol=0, atol=1e-6)


def test_relative_positions_are_refused_where_there_are_none(by_distance):
    folder = by_distance("xlm-roberta", "relative_key")
    for backend, precision, what in (
        ("onnx", "fp32", "the ONNX export"),
        ("torch", "int8", "int8 on the torch backend"),
        ("torch", "fp8", "fp8 on the torch backend"),
    ):
        with pytest.raises(InputError, match=f"{what} has no relative_key positions; use --backe"):
            open_backend(folder, backend, CPU, precision)
    with pytest.raises(InputError, match="can be evaluated, not trained"):
        load(transformers.AutoModel, folder, torch.float32)
