"""Poolings of packed hidden states, by hand."""

import numpy as np
import pytest
import torch

from xtremely.engine.models.stack import MODES, Normalize, Stack, Truncate, pool_states
from xtremely.kernels.packing import Layout

LENGTHS = (5, 1, 3)
STATES = torch.randn(9, 4, generator=torch.Generator().manual_seed(3))


def by_hand(rows: np.ndarray, mode: str, skip: int) -> np.ndarray:
    """The pooling of one sequence [L, H] without its first ``skip`` tokens."""
    kept = rows[skip:]
    if mode == "cls":
        return kept[0] if len(kept) else rows[0]
    if not len(kept):
        return np.full(rows.shape[1], -np.inf if mode == "max" else 0.0)
    weights = np.arange(1, len(rows) + 1)[skip:]
    return {
        "max": kept.max(0),
        "lasttoken": kept[-1],
        "mean": kept.mean(0),
        "mean_sqrt_len_tokens": kept.sum(0) / np.sqrt(len(kept)),
        "weightedmean": (kept * weights[:, None]).sum(0) / weights.sum(),
    }[mode]


@pytest.mark.parametrize("skip", [0, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_pooling_is_its_formula(mode, skip):
    """With three tokens left out, nothing is left of the second sequence and the third."""
    found = pool_states(STATES, Layout(LENGTHS), mode, skip)
    rows = np.split(STATES.double().numpy(), np.cumsum(LENGTHS)[:-1])
    expected = [by_hand(one, mode, skip) for one in rows]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_states_of_16_bits_are_pooled_in_32():
    long = torch.full((4000, 2), 1.001, dtype=torch.bfloat16)
    found = pool_states(long, Layout((4000,)), "weightedmean")
    np.testing.assert_allclose(found.numpy(), float(long[0, 0]), rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_vector_does_not_depend_on_its_batch(mode):
    whole = pool_states(STATES, Layout(LENGTHS), mode)
    alone = pool_states(STATES[6:], Layout(LENGTHS[2:]), mode)
    assert torch.equal(whole[2:], alone)


def test_steps_run_in_their_order():
    vectors = torch.tensor([[3.0, 4.0, 12.0], [0.0, 0.0, 0.0]])
    first = Stack(["mean"], True, [Normalize(), Truncate(2)], 2)(vectors)
    second = Stack(["mean"], True, [Truncate(2), Normalize()], 2)(vectors)
    np.testing.assert_allclose(first.numpy(), [[3 / 13, 4 / 13], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(second.numpy(), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert first.dtype == torch.float32
