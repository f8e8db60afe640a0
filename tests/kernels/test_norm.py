"""LayerNorm, and its result as fp8 rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xtremely.kernels import quantise as quantise_module
from xtremely.kernels.norm import make_inputs, norm, norm_ref
from xtremely.kernels.norm_fp8 import launches, norm_fp8, norm_fp8_ref
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
