"""Every kernel against its twin: exactness by law, memory poisoned, awkward shapes."""

import pytest
import torch

from xtremely.kernels.numerics import assert_no_worse_than_plain, three_answers
from xtremely.kernels.spec import all_kernels

KERNELS = all_kernels()
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
# Without a GPU kernels run in Triton's interpreter, whose bf16 matrix product is wrong.
PRECISIONS = [torch.float32, torch.float16] + ([torch.bfloat16] if GPU else [])
CASES = [
    pytest.param(kernel, case, id=f"{name}-{'-'.join(map(str, case.values()))}".replace(" ", ""))
    for name, kernel in KERNELS.items()
    for case in kernel.cases
]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Fresh memory is NaN, so that a value nobody wrote cannot pass for a result."""
    empty = torch.empty

    def poison(*shape, **options):
        tensor = empty(*shape, **options)
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", poison)


def strided(tensor):
    """The same rows with room between them."""
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2:
        return tensor
    wide = torch.full((tensor.shape[0], tensor.shape[1] + 7), torch.nan).to(tensor)
    wide[:, : tensor.shape[1]] = tensor
    return wide[:, : tensor.shape[1]]


@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda p: str(p)[6:])
@pytest.mark.parametrize(("kernel", "case"), CASES)
def test_a_kernel_errs_no_more_than_twice_plain_torch(kernel, case, precision):
    inputs = kernel.make_inputs(precision, DEVICE, **case)
    assert_no_worse_than_plain(*three_answers(kernel.run, kernel.ref, inputs))


@pytest.mark.parametrize(("kernel", "case"), CASES)
def test_rows_with_room_between_them_give_the_same_bits(kernel, case):
    inputs = kernel.make_inputs(torch.float16, DEVICE, **case)
    apart = {name: strided(value) for name, value in inputs.items()}
    assert torch.equal(kernel.run(**inputs), kernel.run(**apart))


@pytest.mark.parametrize(("kernel", "case"), CASES)
def test_costs_are_counted(kernel, case):
    inputs = kernel.make_inputs(torch.float16, DEVICE, **case)
    flop, moved = kernel.cost(**inputs)
    if next(iter(inputs.values())).numel():
        assert flop > 0 and moved > 0
    else:
        assert flop == 0
