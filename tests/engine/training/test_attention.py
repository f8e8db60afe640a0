"""Attention with dropout on CPUs, against torch's own with the same random numbers."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from xtremely.engine.training import attention as module
from xtremely.engine.training.attention import fast_attention
from xtremely.engine.training.dropout import fast_dropout

SHAPE = (2, 3, 7, 4)  # texts, heads, tokens, width


def inputs(dtype=torch.float64, keys=7):
    made = torch.Generator().manual_seed(1)
    shapes = (SHAPE, (*SHAPE[:2], keys, 4), (*SHAPE[:2], keys, 4))
    return [torch.randn(s, generator=made, dtype=dtype).requires_grad_() for s in shapes]


def padding(keys=7):
    """The second text has five tokens."""
    mask = torch.ones(2, 1, 1, keys, dtype=torch.bool)
    mask[1, ..., 5:] = False
    return mask


def window():
    """Every token sees its neighbours; the last one of the first text sees nothing."""
    near = torch.ones(7, 7, dtype=torch.bool).tril(1).triu(-1).expand(2, 1, 7, 7).clone()
    near[0, :, 6] = False
    return near


MASKS = {
    "none": None,
    "padding": padding(),
    "padding, every query": padding().expand(2, 1, 7, 7),
    "window": window(),
    "numbers": torch.where(window(), 0.5, -math.inf).double(),
    "numbers for all": torch.linspace(-2, 2, 49).view(7, 7).double(),
}


def computed(tensors, mask, dropout, **options):
    """Attention and the gradients of a loss, with fixed random numbers."""
    torch.manual_seed(2)
    out = scaled_dot_product_attention(*tensors, mask, dropout_p=dropout, **options)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out, *torch.autograd.grad((out * weights).sum() + out.square().sum(), tensors)]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("dropout", [0.1, 0.5])
@pytest.mark.parametrize("options", [{}, {"scale": 0.3}])
def test_results_and_gradients_are_torchs(mask, dropout, options):
    tensors = inputs()
    with fast_dropout():
        expected = computed(tensors, mask, dropout, **options)
        with fast_attention():
            found = computed(tensors, mask, dropout, **options)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert expected[0].std() > 0.1


def test_queries_and_keys_of_different_numbers():
    tensors = inputs(keys=9)
    with fast_dropout():
        expected = computed(tensors, padding(9), 0.2)
        with fast_attention():
            found = computed(tensors, padding(9), 0.2)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_small_steps():
    def of(*tensors):
        torch.manual_seed(3)
        return scaled_dot_product_attention(*tensors, padding(), dropout_p=0.3)

    with fast_dropout(), fast_attention():
        assert torch.autograd.gradcheck(of, inputs())


def test_bf16_is_near_fp32():
    exact = inputs(torch.float32)
    rounded = [one.detach().bfloat16().requires_grad_() for one in exact]
    exact = [one.detach().float().requires_grad_() for one in rounded]
    with fast_dropout(), fast_attention():
        for one, other in zip(
            computed(rounded, padding(), 0.1), computed(exact, padding(), 0.1), strict=True
        ):
            assert one.dtype == torch.bfloat16
            assert (one.float() - other).norm() < 0.02 * other.norm()


def test_under_autocast_products_stay_in_bf16():
    with fast_dropout(), fast_attention(), torch.autocast("cpu", torch.bfloat16):
        out = scaled_dot_product_attention(*inputs(torch.float32), dropout_p=0.1)
    assert out.dtype == torch.bfloat16 and "Attention" in type(out.grad_fn).__name__


OTHERS = {
    "no dropout": {"dropout_p": 0.0},
    "all dropped": {"dropout_p": 1.0},
    "causal": {"dropout_p": 0.4, "is_causal": True},
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_what_it_does_not_know_is_torchs_own(monkeypatch, options):
    monkeypatch.delattr(module.Attention, "forward")
    tensors = inputs()
    with fast_dropout(), sdpa_kernel(SDPBackend.MATH):
        torch.manual_seed(4)
        expected = scaled_dot_product_attention(*tensors, **options)
        with fast_attention():
            torch.manual_seed(4)
            found = scaled_dot_product_attention(*tensors, **options)
    assert torch.equal(found, expected)


def test_a_mask_that_is_trained_gets_its_gradient():
    tensors, bias = inputs(), torch.zeros(1, 3, 7, 7, dtype=torch.float64, requires_grad=True)
    with fast_dropout(), fast_attention():
        torch.manual_seed(5)
        scaled_dot_product_attention(*tensors, bias, dropout_p=0.1).square().sum().backward()
    assert bias.grad is not None and bias.grad.abs().sum() > 0


def test_torch_has_its_own_function_back():
    tensors = inputs()
    with pytest.raises(KeyError), fast_attention():
        raise KeyError
    out = scaled_dot_product_attention(*tensors, dropout_p=0.1)
    assert "Attention" not in type(out.grad_fn).__name__
