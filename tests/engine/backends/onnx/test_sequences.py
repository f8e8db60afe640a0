"""Packed graphs: the states of torch's packed encoder for any lengths, and no others' company."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from xtremely.engine.backends.onnx.export import FILE, export, fused
from xtremely.engine.backends.onnx.graph import FLOAT, Graph, Value
from xtremely.engine.backends.onnx.outputs import Product, build
from xtremely.engine.backends.onnx.sequences import (
    BOUNDARY_CHECK,
    POSITION_CHECK,
    TOKEN_CHECK,
    TYPE_CHECK,
    sequences,
)
from xtremely.engine.backends.onnx.verify import ReferenceOutputs, compare, packed
from xtremely.engine.backends.select import open_backend
from xtremely.engine.models.heads import HEAD_KINDS, load_head
from xtremely.engine.models.stack import MODES, pool_states
from xtremely.engine.text.batch import collate
from xtremely.engine.text.tokenizer import Tokenizer, Tokens
from xtremely.kernels.guard import UsageError
from xtremely.kernels.packing import Layout

CPU = torch.device("cpu")
LONGEST = 512
FAMILIES = {
    "bert": {"max_position_embeddings": LONGEST},
    "xlm-roberta": {"type_vocab_size": 1, "max_position_embeddings": LONGEST + 2},
    "modernbert": {
        "local_attention": 20,
        "global_attn_every_n_layers": 2,
        "hidden_size": 64,
        "max_position_embeddings": LONGEST,
    },
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 16,
        "share_att_key": True,
        "position_biased_input": False,
        "type_vocab_size": 1,
        "max_position_embeddings": LONGEST,
    },
    "mpnet": {"max_position_embeddings": LONGEST + 2},
}
LENGTHS = {
    "one token": [1],
    "one sequence": [23],
    "equal lengths": [6, 6, 6, 6],
    "the shortest beside the longest": [3, 1, LONGEST, 2, 40, 40, 1],
}


def made(lengths):
    """A batch of sequences with these lengths, of random tokens of both types."""
    draw, total = np.random.default_rng(0), sum(lengths)
    ids, types = draw.integers(5, 40, total), draw.integers(0, 2, total)
    tokens = Tokens(ids, types, np.cumsum([0, *lengths]), 0)
    return collate(tokens, np.arange(len(lengths)))


def opened(model):
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.fixture(scope="module", params=FAMILIES)
def family(make_tiny, request):
    """A reference in torch, its product, and its packed graph before and after fusion."""
    folder = make_tiny(request.param, **FAMILIES[request.param])
    reference = open_backend(folder, "torch", CPU, "fp32")
    typed = reference.encoder.config.types > 1
    product = Product("hidden states", (0, 1, 3), typed=typed, packed=True)
    model = build(reference.encoder, product)
    both = [model, fused(model, reference.encoder.config)]
    return reference, product, [opened(one) for one in both]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_states_are_those_of_torchs_packed_encoder(family, lengths):
    reference, product, sessions = family
    batch = made(lengths)
    if not product.typed:
        batch.type_ids.zero_()
    states = reference.hidden(batch, product.layers)
    expected = [states[layer].numpy() for layer in product.layers]
    for session in sessions:
        found = session.run([*product.outputs], packed(batch, product))
        assert compare(found, expected).difference < 1e-5


def test_the_encoder_is_computed_without_padding(family):
    """Products over tokens are outside of loops; a body holds those of attention alone."""
    reference, product, _ = family
    outside = [node.op_type for node in build(reference.encoder, product).graph.node]
    assert outside.count("Loop") == reference.layers
    assert outside.count("MatMul") >= 4 * reference.layers


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_heads_on_packed_inputs_give_the_logits_of_padded_ones(make_tiny, tmp_path, kind):
    labels = {} if "answer" in kind or "choice" in kind else {"id2label": dict(enumerate("abc"))}
    folder = make_tiny("bert", f"AutoModel{HEAD_KINDS[kind]}", **labels)
    reference = open_backend(folder, "torch", CPU, "fp32")
    head = load_head(folder, reference, kind, None)
    found = []
    for form in (False, True):
        product = Product(kind, (3,), head=head, packed=form)
        out = tmp_path / str(form)
        assert export(folder, reference, product, "fp32", out).difference < 1e-5
        found.append(ReferenceOutputs.of(reference, product, folder).outputs(out / FILE))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_int8_on_packed_inputs_is_int8_on_padded_ones_whatever_the_company(make_tiny, tmp_path):
    folder = make_tiny("bert", initializer_range=0.05)
    reference = open_backend(folder, "torch", CPU, "fp32")
    tokens = Tokenizer(folder, 128)(["one two", "自由 " * 30, "x"])
    vectors = {}
    for form in (False, True):
        product, out = Product("embedding", (3,), "mean", packed=form), tmp_path / str(form)
        export(folder, reference, product, "int8", out)
        (vectors[form],) = ReferenceOutputs(reference, product, tokens).outputs(out / FILE)
    np.testing.assert_allclose(vectors[True], vectors[False], atol=1e-5)
    alone = packed(collate(tokens, np.array([1])), product)
    session = onnxruntime.InferenceSession(out / FILE)
    np.testing.assert_allclose(session.run(None, alone)[0][0], vectors[True][1], atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_every_pooling_is_torchs(mode):
    lengths = (5, 1, 3)
    states = np.random.default_rng(0).integers(-9, 9, (9, 4))
    graph = Graph()
    names = (Value("ids"), Value("positions"), Value("cu_seqlens"))
    layout, *_ = sequences(graph, *names, width=4)
    found = layout.pool(graph.op("Cast", Value("x"), to=FLOAT), mode)
    graph.op("Identity", found)
    graph.nodes[-1].output[0] = "out"
    given = {"x": states, "ids": np.arange(9), "cu_seqlens": np.array([0, 5, 6, 9])}
    given["positions"] = np.concatenate([np.arange(length) for length in lengths])
    axes = {name: [None] * value.ndim for name, value in given.items()}
    session = opened(graph.model(axes, {"out": [None, None]}))
    expected = pool_states(torch.from_numpy(states).float(), Layout(lengths), mode)
    np.testing.assert_allclose(session.run(["out"], given)[0], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        [0, 3, 5],  # ends before the last token
        [0, 3, 9],
        [1, 3, 7],
        [1, 3, 6],  # as many tokens as there are, but shifted
        [6, 13],
        [0, 5, 3, 7],
        [0, 3, 3, 7],  # an empty sequence
        [-1, 3, 7],
        [-1, 6],
        [0, 0],
        [0],
        [0, 3, 3, 6],  # counting the empty sequence as one token, as many as there are
        [0, 4, 3, 6],
    ],
    ids=str,
)
def test_wrong_boundaries_are_an_error_of_the_graph(family, wrong):
    _, product, sessions = family
    inputs = packed(made([3, 4]), product) | {"cu_seqlens": np.array(wrong)}
    for session in sessions:
        with pytest.raises(Exception, match=BOUNDARY_CHECK):
            session.run(None, inputs)


@pytest.mark.parametrize("wrong", [[0, 1, 1], [0, 1, 0], [0, 2, 2]], ids=str)
def test_an_empty_text_is_no_text_of_zeros(make_tiny, wrong):
    """Without attention, nothing else would fail on it, and a token would be in no text."""
    reference = open_backend(make_tiny("bert"), "torch", CPU, "fp32")
    product = Product("embedding", (0,), "mean", packed=True)
    session = opened(build(reference.encoder, product))
    inputs = packed(made([1, 1]), product)
    assert session.run(None, inputs)[0].shape == (2, reference.width)
    with pytest.raises(Exception, match=BOUNDARY_CHECK):
        session.run(None, inputs | {"cu_seqlens": np.array(wrong)})


@pytest.mark.parametrize(
    "wrong",
    [
        [2, 3, 4, 2, 3, 4, 5],
        [*range(7)],
        [0] * 7,
        [0, 2, 1, 0, 1, 2, 3],  # their sum is right
        [0, 1, 2, 3, 2, 1, 0],
        [1, 1, 1, 0, 1, 2, 3],
        [0, 1, 2, 0, 1, 2, 4],
    ],
    ids=str,
)
def test_wrong_positions_are_an_error_of_the_graph(family, wrong):
    """Nothing is added to them in the RoBERTa line either."""
    _, product, sessions = family
    inputs = packed(made([3, 4]), product) | {"position_ids": np.array(wrong)}
    for session in sessions:
        with pytest.raises(Exception, match=POSITION_CHECK):
            session.run(None, inputs)


def test_a_negative_token_is_an_error_of_the_graph(family):
    """It would be counted from the end of the table of words."""
    _, product, sessions = family
    inputs = packed(made([3, 4]), product)
    for wrong in ([5, 6, 7, -1, 8, 9, 10], [-40] * 7):
        for session in sessions:
            with pytest.raises(Exception, match=TOKEN_CHECK):
                session.run(None, inputs | {"input_ids": np.array(wrong)})


@pytest.mark.parametrize("wrong", [[-1] * 7, [0, 0, 0, 0, 1, -2, 1], [1], [0, 1], [0] * 8], ids=str)
def test_wrong_token_types_are_an_error_of_the_graph(make_tiny, wrong):
    """One alone would hold for all tokens, a negative one be counted from the end of the table."""
    reference = open_backend(make_tiny("bert"), "torch", CPU, "fp32")
    product = Product("hidden states", (3,), typed=True, packed=True)
    session = opened(build(reference.encoder, product))
    inputs = packed(made([3, 4]), product)
    session.run(None, inputs)
    with pytest.raises(Exception, match=TYPE_CHECK):
        session.run(None, inputs | {"token_type_ids": np.array(wrong)})


@pytest.mark.parametrize("form", ["packed", "padded"])
def test_a_sequence_longer_than_the_model_takes_is_an_error(family, form):
    """In the RoBERTa line, the row behind the last position is that of padding."""
    reference, product, _ = family
    product = replace(product, packed=form == "packed", typed=False)
    session = opened(build(reference.encoder, product))

    def run(length):
        batch = made([length])
        if product.packed:
            return session.run(None, packed(batch, product))
        ids = batch.input_ids[None].numpy()
        return session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})

    run(reference.max_length)
    for length in (1, 2, 9):
        with pytest.raises(Exception, match="out of data bounds|[Bb]roadcast"):
            run(reference.max_length + length)


def test_packed_fp16_is_refused(make_tiny, tmp_path):
    folder = make_tiny("bert")
    reference = open_backend(folder, "torch", CPU, "fp32")
    product = Product("embedding", (3,), "mean", packed=True)
    with pytest.raises(UsageError, match="fp32 and int8, got fp16.*export it without --packed"):
        export(folder, reference, product, "fp16", tmp_path / "out")
    assert not (tmp_path / "out").exists()
