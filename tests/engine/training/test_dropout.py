"""Dropout masks on CPUs: their rate, their randomness, and that torch's own kernel comes back."""

import pytest
import torch
from torch.nn import functional

from xtremely.engine.training.dropout import bernoulli, fast_dropout

N = 1_000_003  # not a multiple of four


def seeded(seed, p=0.9, shape=(N,), dtype=torch.float32):
    return bernoulli(torch.empty(shape, dtype=dtype), p, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
def test_share_of_ones(p, dtype):
    mask = seeded(1, p, dtype=dtype)
    assert set(mask.unique().tolist()) == {0, 1}
    deviation = (p * (1 - p) / N) ** 0.5
    assert abs(mask.double().mean().item() - p) < 4 * deviation + 2**-17


def test_neighbours_are_independent():
    """Four elements share a draw; a pair of ones is as frequent as by chance, up to 9 apart."""
    mask = seeded(2, 0.5)
    for distance in range(1, 10):
        both = (mask[distance:] * mask[:-distance]).double().mean().item()
        assert abs(both - 0.25) < 5 * (3 / 16 / N) ** 0.5


def test_ends():
    assert seeded(3, 0.0).sum() == 0
    assert seeded(3, 1.0).sum() == N
    assert seeded(3, 0.5, shape=(0,)).shape == (0,)
    assert seeded(3, 0.5, shape=()).item() in (0, 1)
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(RuntimeError, match="p to be in"):
            seeded(3, p)


def test_strided_target_is_filled_in_its_own_order():
    plain, transposed = torch.empty(6, 5), torch.empty(5, 6).t()
    for target in (plain, transposed):
        bernoulli(target, 0.5, torch.Generator().manual_seed(4))
    assert torch.equal(plain, transposed)


def test_global_state_decides_and_moves_on():
    with fast_dropout():
        torch.manual_seed(5)
        first, second = (functional.dropout(torch.ones(999), 0.3) for _ in range(2))
        torch.manual_seed(5)
        again = functional.dropout(torch.ones(999), 0.3)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert first.unique().tolist() == pytest.approx([0.0, 1 / 0.7])


def test_attention_draws_from_it():
    """With values of one, a row of attention sums to the share of its weights that is kept."""
    query, value = torch.zeros(4, 8, 64, 16), torch.ones(4, 8, 64, 16)
    torch.manual_seed(6)
    with fast_dropout():
        made = functional.scaled_dot_product_attention(query, query, value, dropout_p=0.25)
    mask = bernoulli(torch.empty(4, 8, 64, 64), 0.75, torch.Generator().manual_seed(6))
    torch.testing.assert_close(made[..., 0], mask.mean(-1) / 0.75)


def test_torch_has_its_own_kernel_back():
    def drawn():
        torch.manual_seed(7)
        return torch.empty(100).bernoulli_(0.5)

    before = drawn()
    with pytest.raises(KeyError), fast_dropout():
        assert not torch.equal(drawn(), before)
        raise KeyError
    assert torch.equal(drawn(), before)
