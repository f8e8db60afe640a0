import pytest
import torch

from xtremely.kernels.attention import KERNEL, attention, attention_ref, rope_table
from xtremely.kernels.guard import InputError
from xtremely.kernels.packing import Layout


def turned(x, theta):
    """Dimensions i and i + half as complex numbers, turned by position * theta^(-2 i / dim)."""
    half = x.shape[1] // 2
    frequencies = theta ** -(torch.arange(half).double() / half)
    angles = torch.outer(torch.arange(len(x)).double(), frequencies)
    pairs = torch.complex(x[:, :half], x[:, half:]) * torch.exp(1j * angles)
    return torch.cat([pairs.real, pairs.imag], dim=1)


def by_hand(qkv, lengths, heads, theta=None, window=None):
    """Softmax attention written out for one sequence, head and token at a time, in fp64."""
    total, width = qkv.shape
    dim = width // 3 // heads
    q, k, v = qkv.double().view(total, 3, heads, dim).unbind(1)
    out = torch.zeros(total, heads, dim, dtype=torch.float64)
    start = 0
    for length in lengths:
        rows = slice(start, start + length)
        for head in range(heads):
            queries, keys, values = (one[rows, head] for one in (q, k, v))
            if theta is not None:
                queries, keys = turned(queries, theta), turned(keys, theta)
            for i in range(length):
                near = [j for j in range(length) if window is None or abs(i - j) <= window]
                weights = (keys[near] @ queries[i] / dim**0.5).softmax(0)
                out[start + i, head] = weights @ values[near]
        start += length
    return out.view(total, heads * dim)


@pytest.mark.parametrize("lengths", [[5], [1, 1, 1], [7, 7, 3, 0, 13, 1], [0], [2, 9, 9, 9, 4], []])
@pytest.mark.parametrize("heads", [1, 3])
def test_each_sequence_attends_to_itself_only(lengths, heads):
    qkv = torch.randn(sum(lengths), 3 * heads * 8)
    out = attention_ref(qkv, Layout(lengths), heads)
    torch.testing.assert_close(out.double(), by_hand(qkv, lengths, heads), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("theta", "window"), [(100.0, None), (None, 3), (1e4, 0), (100.0, 5), (1e4, 50)]
)
@pytest.mark.parametrize("lengths", [[7, 7, 3, 0, 13, 1], [1], [30]])
def test_turned_and_windowed_attention_is_what_it_is_by_hand(lengths, theta, window):
    qkv = torch.randn(sum(lengths), 3 * 2 * 8)
    rope = None if theta is None else rope_table(max(lengths), 8, theta, "cpu")
    out = attention_ref(qkv, Layout(lengths), 2, rope, window)
    expected = by_hand(qkv, lengths, 2, theta, window)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [None, 20])
def test_the_kernels_turn_and_window_as_by_hand(window):
    """Short and long tiles, more than one block of keys, the device's own precision."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lengths = [50, 3, 0, 70]
    qkv = torch.randn(sum(lengths), 3 * 32, device=device)
    rope = rope_table(70, 32, 100.0, device)
    out = attention(qkv, Layout(lengths, device), 1, rope, window)
    expected = by_hand(qkv.cpu(), lengths, 1, 100.0, window)
    torch.testing.assert_close(out.double().cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [60, 512])
def test_many_small_values_beside_a_large_one_are_all_counted(length):
    """All weights are alike: 2048 and a half for every other token, which fp16 would not add up."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    qkv = torch.zeros(length, 3 * 32, dtype=torch.float16, device=device)
    qkv[::32, 64:] = 0.5
    qkv[0, 64:] = 2048
    out = attention(qkv, Layout([length], device), 1)
    expected = (2048 + 0.5 * (-(-length // 32) - 1)) / length
    torch.testing.assert_close(
        out.float().cpu(), torch.full((length, 32), expected), rtol=6e-4, atol=0
    )


def test_under_rope_only_distances_count():
    tokens, rope = torch.randn(5, 3 * 16), rope_table(40, 16, 50.0, "cpu")
    found = []
    for start in (0, 9, 35):  # among tokens that are zeros, which look alike from everywhere
        qkv = torch.zeros(40, 3 * 16)
        qkv[start : start + 5] = tokens
        found.append(attention_ref(qkv, Layout([40]), 1, rope)[start : start + 5])
        unturned = attention_ref(qkv, Layout([40]), 1)[start : start + 5]
        assert not torch.allclose(found[-1], unturned, atol=1e-2)
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


def test_a_neighbour_in_the_batch_changes_nothing():
    first, second = torch.randn(4, 3 * 16), torch.randn(4, 3 * 16) * 100
    alone = attention_ref(first, Layout([4]), 2)
    together = attention_ref(torch.cat([first, second]), Layout([4, 4]), 2)
    torch.testing.assert_close(together[:4], alone)


def test_costs_count_the_pairs_that_a_window_leaves():
    lengths, window = (1, 7, 0, 4, 13), 3
    inputs = KERNEL.make_inputs(torch.float32, "cpu", lengths, heads=2, dim=32, window=window)
    pairs = sum(abs(i - j) <= window for n in lengths for i in range(n) for j in range(n))
    flop, moved = KERNEL.cost(**inputs)
    assert (flop, moved) == (4 * 64 * pairs, 4 * 64 * 25 * 4)


def rope(positions=9, dim=32):
    return rope_table(positions, dim, 100.0, "cpu")


@pytest.mark.parametrize("run", [attention, attention_ref])
@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"qkv": torch.zeros(9, 100)}, "qkv has 100 columns, which is not 3 \\* 1 heads"),
        ({"qkv": torch.zeros(9)}, r"qkv has shape \(9,\), expected \[tokens"),
        ({"heads": 0}, "which is not 3 \\* 0 heads"),
        ({"layout": Layout([4, 4])}, "qkv has 9 rows, the layout's sequences have 8 tokens"),
        ({"layout": Layout([4, 5], "meta")}, "qkv is on cpu, the layout on meta; move one"),
        ({"rope": rope(4)}, "a sequence has 5 tokens, rope only 4 positions; cut"),
        ({"rope": rope(dim=30)}, r"rope has shape \(9, 30\), expected \[positions, 32\]"),
        ({"rope": rope().to("meta")}, "rope is on meta, qkv on cpu; move one"),
        ({"window": -1}, "window is -1; legal: 0 or more"),
    ],
)
def test_bad_input_is_refused(run, changed, complaint):
    inputs = {"qkv": torch.zeros(9, 96), "layout": Layout([4, 5]), "heads": 1, **changed}
    with pytest.raises(InputError, match=complaint):
        run(**inputs)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"heads": 2}, "head dimension 16 is not supported; legal: .*use attention_ref"),
        ({"qkv": torch.zeros(9, 96).double()}, "qkv is torch.float64; legal: float32, float16"),
        ({"qkv": torch.zeros(96, 9).T}, "qkv has stride 9 in its last dimension"),
        ({"rope": rope().half()}, "rope is torch.float16; legal: float32"),
        ({"qkv": torch.zeros(9, 96, requires_grad=True)}, "qkv requires grad"),
    ],
)
def test_what_only_the_reference_takes_is_refused_by_the_kernels(changed, complaint):
    inputs = {"qkv": torch.zeros(9, 96), "layout": Layout([4, 5]), "heads": 1, **changed}
    with pytest.raises(InputError, match=complaint):
        attention(**inputs)
