"""The matrix products: what the persistent kernel does, which one runs, fp8 with scales."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from xtremely.kernels import configurations
from xtremely.kernels import linear_fp8 as fp8
from xtremely.kernels import quantise as quantise_module
from xtremely.kernels.configurations import forced
from xtremely.kernels.linear import (
    LIBRARY,
    fits,
    is_persistent,
    launches,
    linear,
    linear_ref,
    make_inputs,
    plain_like,
    shape_class,
    tiled,
)
from xtremely.kernels.linear_fp8 import linear_fp8, linear_fp8_ref
from xtremely.kernels.numerics import assert_no_worse_than_plain, three_answers
from xtremely.kernels.quantise import E4M3, quantise_ref
from xtremely.kernels.spec import all_kernels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HALF = torch.float16
# A tile small enough for several to a program.
PLAIN, PERSISTENT = tiled(32, 32, 32, 4, 2), tiled(32, 32, 32, 4, 2, FLATTEN=True)


def run(config, function=linear, gelu=False, **arguments):
    """``linear`` or ``linear_fp8`` with a configuration."""
    with forced(function.__name__, shape_class(arguments["bias"].dtype, gelu), config):
        return function(gelu=gelu, **arguments)


def inputs(rows, depth, columns, module=None):
    make = module.make_inputs if module else make_inputs
    made = make(HALF, DEVICE, rows=rows, depth=depth, columns=columns, gelu=False)
    return {name: value for name, value in made.items() if name != "gelu"}


def whole_numbers(rows, depth, columns):
    """Arguments whose products and sums are exact in any order."""

    def some(*shape):
        return torch.randint(-4, 5, shape, device=DEVICE).to(HALF)

    return {"x": some(rows, depth), "weight": some(columns, depth), "bias": some(columns)}


@pytest.mark.parametrize("function", [linear, linear_fp8])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 16, 8), (70, 80, 104), (33, 48, 32)])
def test_the_persistent_kernel_obeys_the_law(function, rows, depth, columns, gelu):
    arguments = inputs(rows, depth, columns, fp8 if function is linear_fp8 else None)
    ref = linear_fp8_ref if function is linear_fp8 else linear_ref
    answers = three_answers(
        lambda **given: run(PERSISTENT, function, **given), ref, {**arguments, "gelu": gelu}
    )
    assert_no_worse_than_plain(*answers)


@pytest.mark.parametrize("config", [PLAIN, PERSISTENT])
@pytest.mark.parametrize("function", ["kernel", "reference"])
def test_a_result_in_fp8_is_off_by_at_most_half_a_step(config, function):
    given = fp8.make_inputs(HALF, DEVICE, rows=70, depth=80, columns=112, gelu=True, rounded=True)
    exact = {name: one.double() for name, one in given.items() if isinstance(one, torch.Tensor)}
    rows, weight = (exact[name] * exact[f"{name}_scale"][:, None] for name in ("x", "weight"))
    exact = F.gelu(F.linear(rows, weight, exact["bias"])) / exact["out_scale"][:, None]
    with forced("linear_fp8", "to fp8 gelu fp16", config):
        out = linear_fp8(**given) if function == "kernel" else linear_fp8_ref(**given)
    assert out.dtype == E4M3 and exact.abs().max() < 448
    half_step = torch.maximum(exact.abs() / 16, torch.tensor(2.0**-10, device=DEVICE))
    assert ((out.double() - exact).abs() <= half_step * 1.001 + 1e-5).all()


def test_a_result_in_fp8_beyond_its_scale_is_the_largest_number():
    given = fp8.make_inputs(HALF, DEVICE, rows=3, depth=16, columns=16, gelu=False, rounded=True)
    given["out_scale"][1] = 1e-4
    for function in (linear_fp8, linear_fp8_ref):
        out = function(**given).float()
        assert out[1].abs().max() == 448 and out[[0, 2]].abs().max() < 448


@settings(max_examples=15)
@given(st.integers(1, 70), st.integers(1, 6), st.integers(1, 9))
def test_both_kernels_give_the_same_bits(rows, sixteenths, eighths):
    arguments = inputs(rows, 16 * sixteenths, 8 * eighths)
    assert all(fits(arguments[name]) for name in ("x", "weight"))
    assert torch.equal(run(PERSISTENT, **arguments), run(PLAIN, **arguments))


@pytest.mark.parametrize("config", [PLAIN, PERSISTENT])
def test_a_rows_result_is_its_own_in_any_company(config):
    arguments = whole_numbers(75, 48, 40)
    together, order = run(config, **arguments), torch.randperm(75, device=DEVICE)
    x = arguments.pop("x")
    assert torch.equal(run(config, x=x[order], **arguments), together[order])
    assert torch.equal(run(config, x=x[70:71], **arguments), together[70:71])


@pytest.mark.parametrize("config", [None, PLAIN, PERSISTENT])
@pytest.mark.parametrize("function", [linear, linear_fp8])
@pytest.mark.parametrize("apart", [1, 16, 64, 128])
def test_many_small_terms_beside_a_large_one_are_all_counted(function, config, apart):
    """2048 and a half at every so many products: added up in fp16, the halves would vanish."""
    depth = 8192
    weight = torch.zeros(1, depth, device=DEVICE)
    weight[:, ::apart] = 0.5
    weight[0, 0] = 128
    x = torch.ones(1, depth, device=DEVICE)
    x[0, 0] = 16
    bias = torch.zeros(1, dtype=HALF, device=DEVICE)
    expected = 2048 + 0.5 * (depth // apart - 1)
    if function is linear:
        given = {"x": x.to(HALF), "weight": weight.to(HALF), "bias": bias}
    else:
        one = torch.ones(1, device=DEVICE)
        given = {"x": x.to(E4M3), "x_scale": one, "weight": weight.to(E4M3), "weight_scale": one}
        given["bias"] = bias
    out = run(config, function, **given) if config else function(**given)
    assert out.item() == torch.tensor(expected).to(HALF).item()


@pytest.mark.parametrize("width", [48, 51, 56])
def test_rows_that_the_copy_engine_cannot_take_give_the_same_result(width):
    arguments = whole_numbers(40, 48, 24)
    wide = torch.full((40, width), torch.nan, dtype=HALF, device=DEVICE)
    apart = wide[:, :48].copy_(arguments["x"])
    assert fits(apart) == (width != 51)  # rows of 102 bytes do not begin at multiples of 16
    expected = F.linear(*(arguments[name].float() for name in ("x", "weight", "bias")))
    assert torch.equal(run(PERSISTENT, **{**arguments, "x": apart}).float(), expected)


def test_what_the_copy_engine_can_take():
    whole = torch.zeros(6, 16, dtype=HALF, device=DEVICE)
    assert fits(whole) and fits(whole[2:]) and fits(whole[:, 8:]) and fits(whole[:, :3])
    assert not fits(whole[:, 1:])  # begins within 16 bytes
    assert not fits(whole[:0]) and not fits(whole[:1].expand(4, 16))
    assert not fits(whole[:, ::2]) and not fits(torch.zeros(6, 12, dtype=HALF, device=DEVICE))
    assert not fits(torch.zeros(6, 24, dtype=torch.uint8, device=DEVICE))


@pytest.mark.parametrize("gelu", [False, True])
def test_where_the_library_was_faster_it_runs(gelu):
    arguments = inputs(5, 16, 8)
    expected = F.linear(arguments["x"], arguments["weight"], arguments["bias"])
    got = run(LIBRARY, gelu=gelu, **arguments)
    assert torch.equal(got, F.gelu(expected) if gelu else expected)


def test_the_cases_reach_the_persistent_kernel():
    for kernel in (all_kernels()["linear"], all_kernels()["linear_fp8"]):
        given = [kernel.make_inputs(HALF, torch.device(DEVICE), **case) for case in kernel.cases]
        assert any(fits(one["x"]) and fits(one["weight"]) and len(one["x"]) > 128 for one in given)


def test_hopper_ships_the_persistent_kernel_with_a_plain_one_for_other_rows(monkeypatch):
    monkeypatch.setattr(configurations, "read_table", dict)  # untuned
    for ships in (launches, fp8.launches):
        shipped = {one.name: one.config for one in ships("sm_90") if "fp32" not in one.name}
        for name, config in shipped.items():
            assert is_persistent(config) == (not name.startswith("plain"))
        pairs = [(n, f"plain {n}") for n in shipped if not n.startswith("plain")]
        assert pairs and all(plain in shipped for _, plain in pairs)
        if ships is fp8.launches:  # whether the matrix unit adds up all products changes bits
            for name, plain in pairs:
                both = (shipped[one].constants["SUMMED"] for one in (name, plain))
                assert len(set(both)) == 1
    for architecture in ("sm_80", "gfx942", "interpreter"):
        assert not any(is_persistent(one.config) for one in launches(architecture))


@pytest.mark.parametrize("summed", [None, 0, 32, 128])
def test_a_fallback_adds_up_as_the_configuration_that_it_stands_in_for(summed):
    """Whatever else differs: how many products the matrix unit adds up changes bits."""
    config = tiled(64, 64, 64, 8, 4, FLATTEN=True, SUMMED=summed)
    plain = plain_like(config, PLAIN)
    assert plain.constants == {**PLAIN.constants, "SUMMED": summed}
    assert (plain.warps, plain.stages) == (PLAIN.warps, PLAIN.stages)


def test_single_precision_is_multiplied_in_single_precision():
    """By no matrix unit that drops digits: what the interpreter does not imitate."""
    for architecture in ("sm_80", "sm_90", "gfx942"):
        found = [
            (one.name, one.constants["DOT"])
            for kernel in all_kernels().values()
            for one in kernel.launches(architecture)
            if "DOT" in one.constants
        ]
        assert {dot for name, dot in found if "fp32" in name.split()} == {"ieee"}
        assert {dot for name, dot in found if "fp32" not in name.split()} == {"tf32"}


def test_a_library_chosen_by_tuning_ships_no_kernel():
    with forced("linear", "gelu bf16", LIBRARY):
        assert "gelu bf16" not in {one.name for one in launches("sm_90")}


@pytest.mark.parametrize("function", [linear_fp8, linear_fp8_ref])
def test_fp8_by_hand(function):
    x = torch.tensor([[2.0, -1.0], [448.0, 0.5]], device=DEVICE).to(E4M3)
    weight = torch.tensor([[1.0, 3.0], [0.0, -2.0], [0.25, 8.0]], device=DEVICE).to(E4M3)
    x_scale = torch.tensor([0.5, 2.0], device=DEVICE)
    weight_scale = torch.tensor([4.0, 1.0, 0.5], device=DEVICE)
    bias = torch.tensor([0.0, 1.0, -1.0], device=DEVICE, dtype=HALF)
    # Products [[-1, 2, -7.5], [449.5, -1, 116]], times scales [[2, .5, .25], [8, 2, 1]], plus bias.
    expected = torch.tensor([[-2.0, 2.0, -2.875], [3596.0, -1.0, 115.0]], dtype=HALF)
    out = function(x, x_scale, weight, weight_scale, bias)
    assert torch.equal(out.cpu(), expected)
    normal = [0.5 * y * (1 + math.erf(y / 2**0.5)) for y in expected.flatten().tolist()]
    out = function(x, x_scale, weight, weight_scale, bias, gelu=True)
    torch.testing.assert_close(out.cpu(), torch.tensor(normal, dtype=HALF).view(2, 3))


def test_fp8_comes_close_to_the_product_that_was_quantised():
    x = torch.randn(20, 256, dtype=torch.float64, device=DEVICE)
    weight = torch.randn(24, 256, dtype=torch.float64, device=DEVICE) / 16
    bias = torch.zeros(24, dtype=HALF, device=DEVICE)
    out = linear_fp8(*quantise_ref(x.float()), *quantise_ref(weight.float()), bias)
    # Each factor is off by up to 1/16, evenly spread: about 1/40 RMS, both about 1/28.
    assert (out - x @ weight.T).pow(2).mean().sqrt() < 0.05
    assert (out - x @ weight.T).pow(2).mean().sqrt() > 0.01


@pytest.mark.parametrize("function", [linear_fp8, linear_fp8_ref])
@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"x": torch.zeros(2, 5).to(E4M3)}, r"x is \(2, 5\), weight \(3, 4\); expected \[M, K\]"),
        ({"bias": torch.zeros(4, dtype=HALF)}, r"bias has shape \(4,\), expected \(3,\)"),
        ({"x_scale": torch.zeros(1)}, r"x_scale has shape \(1,\), expected \(2,\), a scale a row"),
        ({"weight_scale": torch.zeros(3, 1)}, r"weight_scale has shape \(3, 1\), expected \(3,\)"),
    ],
)
def test_fp8_arguments_that_do_not_go_together_are_refused(function, changed, complaint):
    changed = {name: tensor.to(DEVICE) for name, tensor in changed.items()}
    with pytest.raises(ValueError, match=complaint):
        function(**{**inputs(2, 4, 3, fp8), **changed})


@pytest.mark.parametrize(
    ("name", "precision", "legal"),
    [
        ("x", HALF, "float8_e4m3fn"),
        ("weight", torch.float32, "float8_e4m3fn"),
        ("x_scale", HALF, "float32"),
        ("bias", torch.float32, "float16, bfloat16"),
    ],
)
def test_fp8_of_another_precision_is_refused(name, precision, legal):
    arguments = inputs(2, 4, 3, fp8)
    arguments[name] = arguments[name].to(precision)
    with pytest.raises(ValueError, match=f"{name} is {precision}; legal: {legal}"):
        linear_fp8(**arguments)


def test_fp8_on_a_device_without_it_is_refused_and_ships_nothing(monkeypatch):
    assert fp8.launches("sm_80") == [] and fp8.launches("gfx942") == []
    monkeypatch.setattr(quantise_module, "architecture_of", lambda device: "sm_80")
    with pytest.raises(ValueError, match="is sm_80, which has no e4m3 arithmetic"):
        linear_fp8(**inputs(2, 4, 3, fp8))


@pytest.mark.parametrize("run", [linear, linear_ref])
@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"weight": torch.zeros(3, 5, dtype=HALF)}, r"x is \(2, 4\), weight \(3, 5\)"),
        ({"bias": torch.zeros(3)}, "bias torch.float32; they must be alike"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(run, changed, complaint):
    changed = {name: tensor.to(DEVICE) for name, tensor in changed.items()}
    with pytest.raises(ValueError, match=complaint):
        run(**{**inputs(2, 4, 3), **changed})


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA device")
@pytest.mark.parametrize("gelu", [False, True])
def test_fp8_sums_of_many_products_obey_the_law(gelu):
    """Sums of 4,096 products: a matrix unit that kept its 14 bits throughout would show here."""
    made = fp8.make_inputs(HALF, DEVICE, rows=300, depth=4096, columns=256, gelu=gelu)
    assert_no_worse_than_plain(*three_answers(linear_fp8, linear_fp8_ref, made))
