"""Inner products of every query with its own list of keys, summed in fp64."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from xtremely.kernels.configurations import Config, architecture, choose
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
MAX_CHOSEN = 65535  # most keys per query: the limit of a CUDA grid's second dimension


def rescore(queries: Tensor, keys: Tensor, indices: Tensor) -> Tensor:
    """Inner products of every query with its own keys, summed in fp64 and rounded to fp32.

    Equal pairs of vectors have results of the same bits, wherever they are.

    Args:
        queries: [M, D] fp32, fp16 or bf16; rows may be strided.
        keys: [N, D], the same precision.
        indices: [M, C] int64, the rows of each query's keys; C is at most 65535.

    Returns:
        [M, C] fp32.

    Raises:
        InputError: a shape, dtype, number of keys or index is not legal.
    """
    from xtremely.kernels import _rescore

    _checked(queries, keys, indices)
    for name, tensor in (("queries", queries), ("keys", keys)):
        kernel_input(name, tensor, PRECISIONS)
    indices = indices.contiguous()
    out = torch.empty(indices.shape, dtype=torch.float32, device=queries.device)
    if out.numel():
        rows, count = indices.shape
        config = _config(queries.dtype, architecture(queries.device))
        with torch.cuda.device_of(queries):  # on which Triton launches
            _rescore.rescore[rows, -(-count // config.constants["BLOCK_C"])](
                queries,
                keys,
                indices,
                out,
                queries.shape[1],
                count,
                queries.stride(0),
                keys.stride(0),
                **config.constants,
                num_warps=config.warps,
            )
    return out


def rescore_ref(queries: Tensor, keys: Tensor, indices: Tensor) -> Tensor:
    """``rescore`` in plain torch."""
    _checked(queries, keys, indices)
    return (queries.double()[:, None] * keys.double()[indices]).sum(dim=2).float()


def _checked(queries: Tensor, keys: Tensor, indices: Tensor) -> None:
    require(
        queries.ndim == keys.ndim == 2 and queries.shape[1] == keys.shape[1],
        f"queries are {tuple(queries.shape)}, keys {tuple(keys.shape)}; expected [M, D], [N, D]",
    )
    require(
        queries.dtype == keys.dtype and queries.device == keys.device == indices.device,
        f"queries are {queries.dtype} on {queries.device}, keys {keys.dtype} on {keys.device},"
        f" indices on {indices.device}; they must be alike",
    )
    require(
        indices.dtype == torch.int64
        and indices.shape[:-1] == queries.shape[:1]
        and indices.shape[-1] <= MAX_CHOSEN,
        f"indices are {tuple(indices.shape)} {indices.dtype}; expected [{len(queries)}, up to"
        f" {MAX_CHOSEN}] torch.int64",
    )
    if indices.numel():
        low, high = (int(one) for one in indices.aminmax())
        require(
            low >= 0 and high < len(keys),
            f"indices run from {low} to {high}; there are {len(keys)} keys",
        )


def _config(precision: torch.dtype, architecture: str) -> Config:
    return choose("rescore", TYPES[precision], architecture, _candidates()[0])


@cache
def _candidates() -> tuple[Config, ...]:
    """Settings to measure; the default, which was not tuned, first."""
    settings = ((32, 64, 4), (32, 32, 2), (32, 128, 8), (16, 64, 2), (16, 128, 4))
    return tuple(Config({"BLOCK_C": c, "BLOCK_K": k}, warps) for c, k, warps in settings)


def make_inputs(
    precision: torch.dtype, device: torch.device, rows: int, columns: int, depth: int, chosen: int
) -> Inputs:
    """Random vectors, and random keys for every query."""
    queries, keys = (torch.randn(n, depth, device=device, dtype=precision) for n in (rows, columns))
    indices = torch.randint(columns, (rows, chosen), device=device)
    return {"queries": queries, "keys": keys, "indices": indices}


def cost(queries: Tensor, keys: Tensor, indices: Tensor) -> tuple[float, float]:
    """Two operations per product; queries and chosen keys read and the result written once."""
    rows, depth = queries.shape
    vectors = (rows + indices.numel()) * depth * queries.element_size()
    return 2.0 * indices.numel() * depth, float(vectors + 12 * indices.numel())


def launches(architecture: str) -> list[Launch]:
    """Every precision."""
    from xtremely.kernels import _rescore

    places = {"INDICES": "*i64", "OUT": "*fp32"}
    sizes = dict.fromkeys(("K", "count", "stride_x", "stride_y"), "i32")
    return [
        Launch(
            TYPES[precision],
            _rescore.rescore,
            {**dict.fromkeys("XY", f"*{TYPES[precision]}"), **places, **sizes},
            {},
            _config(precision, architecture),
        )
        for precision in PRECISIONS
    ]


def tunings() -> list[Tuning]:
    """16 keys per query, as in an exact search for four neighbours."""
    case = {"rows": 2**15, "columns": 2**17, "depth": 1024, "chosen": 16}
    return [Tuning(TYPES[precision], precision, case, _candidates()) for precision in PRECISIONS]


KERNEL = Kernel(
    name="rescore",
    run=rescore,
    ref=rescore_ref,
    cases=tuple(
        {"rows": rows, "columns": columns, "depth": depth, "chosen": chosen}
        for rows, columns, depth, chosen in (
            (0, 5, 8, 3),
            (1, 1, 1, 1),
            (7, 3, 33, 5),
            (3, 17, 1031, 4),
        )
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=tunings,
)
