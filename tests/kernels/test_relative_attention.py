"""Attention with relative positions against its formula, written as loops in fp64."""

import numpy as np
import pytest
import torch

from xtremely.kernels import relative_attention
from xtremely.kernels.guard import InputError
from xtremely.kernels.packing import Layout
from xtremely.kernels.relative_attention import (
    KERNEL,
    relative_attention_ref,
)
from xtremely.kernels.relative_attention import relative_attention as kernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS, DIM, POSITIONS, ROWS = 2, 8, 12, 5
LENGTHS = (12, 7, 7, 3, 1)
TABLES = ("position_keys", "position_queries", "bias")


def made(lengths=LENGTHS, tables=TABLES, precision=torch.float32, dim=DIM, positions=POSITIONS):
    """The function's arguments, with a row of the tables drawn for every distance."""
    rng = torch.Generator().manual_seed(3)
    shapes = dict.fromkeys(TABLES, (ROWS, HEADS * dim)) | {"bias": (ROWS, HEADS)}
    qkv = torch.randn(sum(lengths), 3 * HEADS * dim, generator=rng).to(precision)
    held = {name: torch.randn(shapes[name], generator=rng).to(precision) for name in TABLES}
    return {
        "qkv": qkv,
        "layout": Layout(lengths),
        "heads": HEADS,
        "scale": 0.3,
        "buckets": torch.randint(ROWS, (2 * positions - 1,), generator=rng),
        **{name: held[name] for name in tables},
    }


def by_loops(qkv, layout, heads, scale, buckets, **tables):
    """The formula of the docstring, one score at a time."""
    given = {name: one.double().numpy() for name, one in tables.items()}
    dim, positions = qkv.shape[1] // (3 * heads), len(buckets) // 2 + 1
    q, k, v = qkv.double().numpy().reshape(len(qkv), 3, heads, dim).transpose(1, 2, 0, 3)
    out, start = np.zeros((len(qkv), heads, dim)), 0
    for length in layout.lengths:
        for head in range(heads):
            part = slice(head * dim, (head + 1) * dim)
            for i in range(length):
                scores = []
                for j in range(length):
                    row = buckets[j - i + positions - 1]
                    score = q[head, start + i] @ k[head, start + j]
                    if "position_keys" in given:
                        score += q[head, start + i] @ given["position_keys"][row, part]
                    if "position_queries" in given:
                        score += k[head, start + j] @ given["position_queries"][row, part]
                    bias = given["bias"][row, head] if "bias" in given else 0
                    scores.append(scale * score + bias)
                weights = np.exp(scores) / np.exp(scores).sum()
                out[start + i, head] = weights @ v[head, start : start + length]
        start += length
    return torch.from_numpy(out.reshape(len(qkv), heads * dim))


@pytest.mark.parametrize(
    "tables", [(), *((name,) for name in TABLES), TABLES[:2], TABLES], ids="+".join
)
def test_scores_are_those_of_the_formula(tables):
    inputs = made(tables=tables)
    found = relative_attention_ref(**inputs)
    torch.testing.assert_close(found.double(), by_loops(**inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "tables", [(), *((name,) for name in TABLES), TABLES[:2], TABLES], ids="+".join
)
def test_scores_of_the_kernels_are_those_of_the_formula(tables):
    """In both tilings: in fp32 sequences of more than 16 tokens are split."""
    inputs = made((2, 1, 16, 17, 35), tables, dim=32, positions=36)
    on_device = {
        name: value.to(DEVICE) if hasattr(value, "to") else value for name, value in inputs.items()
    }
    found = kernel(**on_device).cpu()
    torch.testing.assert_close(found.double(), by_loops(**inputs), rtol=1e-5, atol=2e-6)


def test_costs_count_a_product_for_every_table_but_the_bias():
    lengths, dim = (1, 7, 0, 4, 13), 32
    case = {"lengths": lengths, "heads": 2, "dim": dim, "span": 5}
    pairs, tokens = sum(n * n for n in lengths), sum(lengths)
    for terms, products, entries in (
        (("bias",), 2, 2),
        (("c2p",), 3, 64),
        (("c2p", "p2c", "bias"), 4, 130),
    ):
        flop, moved = KERNEL.cost(**KERNEL.make_inputs(torch.float32, "cpu", terms=terms, **case))
        assert flop == products * 2 * 64 * pairs
        assert moved == 4 * 64 * tokens * 4 + 4 * 10 * entries + 8 * 25


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_16_bits_stay_near_the_formula(precision):
    inputs = made(precision=precision)
    found, expected = relative_attention_ref(**inputs), by_loops(**inputs)
    assert found.dtype == precision
    step = torch.finfo(precision).eps
    assert (found.double() - expected).abs().max() < 12 * step


def assert_near(found, expected):
    """Equal but for rounding, which in torch's products depends on how threads share the work."""
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=3e-7)


def test_a_sequence_has_the_same_states_alone_and_in_company():
    inputs = made()
    together = relative_attention_ref(**inputs).split(LENGTHS)
    for rows, expected in zip(inputs["qkv"].split(LENGTHS), together, strict=True):
        alone = {**inputs, "qkv": rows, "layout": Layout([len(rows)])}
        assert_near(relative_attention_ref(**alone), expected)


def test_sequences_that_do_not_fit_together_are_computed_in_groups(monkeypatch):
    inputs = made(lengths=(9,) * 5)
    at_once, sizes = relative_attention_ref(**inputs), []
    monkeypatch.setattr(relative_attention, "MOST_SCORES", 2 * HEADS * 2 * 9 * 9)
    real = relative_attention.skewed
    monkeypatch.setattr(
        relative_attention, "skewed", lambda one: sizes.append(len(one)) or real(one)
    )
    assert_near(relative_attention_ref(**inputs), at_once)
    assert sizes == [2, 2, 1, 2, 2, 1, 1, 1, 1]  # keys, queries, the common bias; three groups


def test_no_sequences_have_no_rows():
    assert relative_attention_ref(**made(lengths=())).shape == (0, HEADS * DIM)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"layout": Layout([3, 13, 14])}, "a sequence has 14 tokens, buckets only 12 positions"),
        ({"layout": Layout([29])}, "qkv has 30 rows, the layout's sequences have 29 tokens"),
        ({"heads": 5}, "qkv has 48 columns, which is not 3 . 5 heads . dim"),
        ({"buckets": torch.zeros(24, dtype=torch.int64)}, "buckets has shape .24,., expected .2"),
        ({"qkv": torch.zeros(30)}, "qkv has shape .30,., expected .tokens"),
        ({"position_keys": torch.zeros(5, 8)}, r"position_keys has shape \(5, 8\), expected .*16"),
        ({"bias": torch.zeros(5, 16)}, r"bias has shape \(5, 16\), expected \[rows, 2\]"),
        ({"bias": torch.zeros(5, 2, device="meta")}, "bias is on meta, qkv on cpu; move one"),
    ],
    ids=["longer", "rows", "heads", "buckets", "shape", "keys", "bias", "device"],
)
@pytest.mark.parametrize("run", [kernel, relative_attention_ref])
def test_arguments_that_do_not_fit_are_refused(run, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        run(**{**made(), **changes})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, "head dimension 8 is not supported; legal: .*use relative_attention_ref"),
        ({"dim": 32, "precision": torch.float64}, "qkv is torch.float64; legal: float32, float16"),
    ],
    ids=["dimension", "precision"],
)
def test_what_only_the_reference_takes_is_refused_by_the_kernels(changes, complaint):
    with pytest.raises(InputError, match=complaint):
        kernel(**made(**changes))


def test_tables_of_another_precision_are_refused_by_the_kernels():
    inputs = made(dim=32)
    with pytest.raises(InputError, match="bias is torch.float16; legal: float32"):
        kernel(**{**inputs, "bias": inputs["bias"].half()})
