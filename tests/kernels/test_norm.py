"""LayerNorm, and its result as fp8 rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xtremely.kernels import quantise as quantise_module
from xtremely.kernels.embedding import embedding
from xtremely.kernels.norm import make_inputs, norm, norm_ref
from xtremely.kernels.norm_fp8 import launches, norm_fp8, norm_fp8_ref
from xtremely.kernels.prenorm import prenorm
from xtremely.kernels.quantise import quantise

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def inputs(rows, width, precision=torch.float32):
    return make_inputs(precision, DEVICE, rows=rows, width=width)


@pytest.mark.parametrize("run", [norm, norm_ref])
def test_a_hand_made_row(run):
    x, residual, weight, bias = torch.tensor(
        [[1.0, 2.0], [2.0, 5.0], [2.0, 0.5], [0.0, 10.0]], device=DEVICE
    )
    out = run(x[None], residual[None], weight, bias, 0.0)  # of 3 and 7: mean 5, deviation 2
    torch.testing.assert_close(out.cpu(), torch.tensor([[-2.0, 10.5]]))


def centred(total, weight, bias, eps):
    """LayerNorm written out in fp64."""
    total = total.double()
    off = total - total.mean(dim=1, keepdim=True)
    return off / (off.pow(2).mean(dim=1, keepdim=True) + eps).sqrt() * weight + bias


@pytest.mark.parametrize("mean", [0.0, 300.0, -5000.0])
@pytest.mark.parametrize("width", [5, 384, 1000])
@pytest.mark.parametrize("name", ["norm", "norm_fp8", "prenorm", "embedding"])
def test_a_mean_far_above_the_deviation_costs_no_digits(name, width, mean):
    """Whole halves, so that sums are exact in fp32; the variance of squares is off by percents."""
    rows = torch.randint(-4, 5, (3, width), device=DEVICE) / 2.0
    weight, bias = torch.rand(2, width, device=DEVICE)
    x, residual = rows + mean, torch.randint(-2, 3, (3, width), device=DEVICE) / 2.0
    ids = torch.arange(3, device=DEVICE)
    if name == "embedding":
        out = embedding(ids, ids, ids, x, residual, None, weight, bias, 1e-5)
    elif name == "prenorm":
        total, out = prenorm(x, residual, weight, bias, 1e-5)
        assert torch.equal(total, x + residual)
    else:
        out = {"norm": norm, "norm_fp8": norm_fp8}[name](x, residual, weight, bias, 1e-5)
        out = out[0] if name == "norm_fp8" else out
    expected = centred(x + residual, weight, bias, 1e-5)
    torch.testing.assert_close(
        out.double(), expected, rtol=1e-4, atol=2e-3 * (abs(mean) / 5000 + 1e-2)
    )


def normed(name, x, residual):
    """LayerNorm of two rows' sum by each kernel, with weight 1 and bias 0."""
    one, none = torch.ones_like(x[0]), torch.zeros_like(x[0])
    ids = torch.arange(len(x), device=DEVICE)
    if name == "embedding":
        return embedding(ids, ids, ids, x, residual, None, one, none, 1e-5)
    out = {"norm": norm, "norm_fp8": norm_fp8, "prenorm": prenorm}[name](
        x, residual, one, none, 1e-5
    )
    return {"norm": lambda: out, "norm_fp8": lambda: out[0], "prenorm": lambda: out[1]}[name]()


@pytest.mark.parametrize("name", ["norm", "norm_fp8", "prenorm", "embedding"])
def test_rows_of_half_precision_are_normalised_in_single(name):
    """A thousand values of 0 and two of 300: their squares are beyond fp16."""
    x = torch.zeros(1, 1000, dtype=torch.float16, device=DEVICE)
    x[0, :2] = torch.tensor([300.0, -300.0])
    out = normed(name, x, torch.zeros_like(x))
    # Deviation sqrt(2 * 300^2 / 1000) = 13.4; 300 / 13.4 = sqrt(500).
    assert out[0, :2].tolist() == pytest.approx([500**0.5, -(500**0.5)], rel=5e-4)
    assert not out[0, 2:].any()


@pytest.mark.parametrize("name", ["norm", "norm_fp8", "prenorm", "embedding"])
def test_rows_of_half_precision_are_added_in_single(name):
    """2048 and a half, and so on: in fp16 all of these sums are 2048."""
    x = torch.full((1, 4), 2048.0, dtype=torch.float16, device=DEVICE)
    residual = torch.tensor([[0.5, 1.0, 0.0, -0.5]], dtype=torch.float16, device=DEVICE)
    out = normed(name, x, residual)
    # Mean 1/4; off by 1/4, 3/4, -1/4, -3/4; variance 5/16.
    expected = [value / 5**0.5 for value in (1, 3, -1, -3)]
    assert out[0].tolist() == pytest.approx(expected, rel=1e-3)


@settings(max_examples=25)
@given(st.integers(0, 5), st.integers(1, 300), st.sampled_from([torch.float32, torch.float16]))
def test_in_one_pass_it_is_norm_and_then_quantise(rows, width, precision):
    arguments = inputs(rows, width, precision)
    out, values, scale, length = norm_fp8(**arguments)
    assert torch.allclose(length, out.float().norm(dim=1), rtol=1e-5)
    assert torch.equal(out, norm(**arguments))
    again, again_scale = quantise(out)
    assert torch.equal(values.float(), again.float()) and torch.equal(scale, again_scale)


def test_a_row_that_norms_to_zeros_has_fp8_zeros():
    x = torch.full((1, 8), 3.0, device=DEVICE)
    ones, zeros = torch.ones(8, device=DEVICE), torch.zeros(8, device=DEVICE)
    for run in (norm_fp8, norm_fp8_ref):
        out, values, scale, length = run(x, x, ones, zeros, 1e-5)
        assert (
            not out.any()
            and not length.any()
            and not values.float().any()
            and scale.tolist() == [2.0**-126]
        )


@pytest.mark.parametrize("run", [norm, norm_ref, norm_fp8, norm_fp8_ref])
@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"x": torch.zeros(4)}, r"x has shape \(4,\), expected \[tokens, width\]"),
        ({"residual": torch.zeros(3, 4)}, r"residual is \(3, 4\) torch.float32, x \(2, 4\)"),
        ({"weight": torch.zeros(5)}, r"weight has shape \(5,\), expected \(4,\)"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(run, changed, complaint):
    changed = {name: tensor.to(DEVICE) for name, tensor in changed.items()}
    with pytest.raises(ValueError, match=complaint):
        run(**{**inputs(2, 4), **changed})


@pytest.mark.parametrize("run", [norm, norm_fp8])
def test_rows_that_do_not_fit_into_registers_are_refused(run):
    with pytest.raises(ValueError, match="rows of 8193 are too wide; legal: up to 8192"):
        run(**inputs(1, 8193))


def test_a_device_without_e4m3_is_refused_and_ships_nothing(monkeypatch):
    assert launches("sm_80") == [] and launches("gfx942") == [] and launches("sm_90")
    monkeypatch.setattr(quantise_module, "architecture_of", lambda device: "sm_80")
    with pytest.raises(ValueError, match="is sm_80, which has no e4m3 arithmetic"):
        norm_fp8(**inputs(1, 4))
