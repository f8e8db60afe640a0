"""Matrix product with bias and GELU in the epilogue: the Triton kernels of ``linear``.

Both kernels sum products in the same order, which depends on K and BLOCK_K alone.
"""

import triton
import triton.language as tl

from xtremely.kernels import _geglu, _quantise


@triton.jit
def corner(tile, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr):
    """First row and column of a tile; GROUP row tiles share the weights of a column tile in L2."""
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    in_group = GROUP * tiles_n
    first = tile // in_group * GROUP
    rows = tl.minimum(tiles_m - first, GROUP)
    return (first + tile % in_group % rows) * BLOCK_M, tile % in_group // rows * BLOCK_N


@triton.jit
def finished(total, m, n, M, N, BIAS, X_SCALE, WEIGHT_SCALE, OUT_SCALE, GELU: tl.constexpr):
    """The epilogue for rows m and columns n: scales (if there are any), bias, GELU, rounding."""
    if X_SCALE is not None:
        total *= tl.load(X_SCALE + m, mask=m < M, other=0.0)[:, None]
        total *= tl.load(WEIGHT_SCALE + n, mask=n < N, other=0.0)[None, :]
    total += tl.load(BIAS + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    if GELU:
        total = _geglu.gelu(total, BIAS.dtype.element_ty == tl.float32)
    if OUT_SCALE is not None:
        scale = tl.load(OUT_SCALE + m, mask=m < M, other=1.0)
        total *= tl.div_rn(1.0, scale)[:, None]
        return _quantise.rounded(total)
    else:
        return total.to(BIAS.dtype.element_ty)


@triton.jit
def multiply(
    X,  # [M, K]
    WEIGHT,  # [N, K]
    BIAS,  # [N]
    X_SCALE,  # [M], or None
    WEIGHT_SCALE,  # [N], or None
    OUT_SCALE,  # [M], or None where the result is not e4m3
    OUT,  # [M, N]
    M,
    N,
    K,
    stride_x,
    stride_weight,
    stride_out,
    GELU: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    SUMMED: tl.constexpr,  # fp8 products that Hopper's tensor cores sum at a time; None for all
    DOT: tl.constexpr,
):
    """One tile of the result, for operands of any row strides."""
    first_m, first_n = corner(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP)
    m = first_m + tl.arange(0, BLOCK_M)
    n = first_n + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    x = X + (m % M).to(tl.int64)[:, None] * stride_x + k[None, :]
    weight = WEIGHT + (n % N).to(tl.int64)[:, None] * stride_weight + k[None, :]
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        left = (k < K - start)[None, :]
        a = tl.load(x + start, mask=left, other=0.0)
        b = tl.load(weight + start, mask=left, other=0.0)
        if DOT == "ieee":  # in fp32 a sum of partial sums has less error than one long sum
            total += tl.dot(a, b.T, input_precision=DOT, max_num_imprecise_acc=SUMMED)
        else:
            total = tl.dot(a, b.T, total, max_num_imprecise_acc=SUMMED)
    out = finished(total, m, n, M, N, BIAS, X_SCALE, WEIGHT_SCALE, OUT_SCALE, GELU)
    target = OUT + m.to(tl.int64)[:, None] * stride_out + n[None, :]
    tl.store(target, out, mask=(m < M)[:, None] & (n < N)[None, :])


@triton.jit
def multiply_persistent(
    X,  # descriptor of [M, K] by [BLOCK_M, BLOCK_K]
    WEIGHT,  # descriptor of [N, K] by [BLOCK_N, BLOCK_K]
    BIAS,  # [N]
    X_SCALE,  # [M], or None
    WEIGHT_SCALE,  # [N], or None
    OUT_SCALE,  # [M], or None where the result is not e4m3
    OUT,  # descriptor of [M, N] by [BLOCK_M, BLOCK_N / 2]
    M,
    N,
    K,
    GELU: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    SUMMED: tl.constexpr,  # fp8 products that Hopper's tensor cores sum at a time; None for all
    FLATTEN: tl.constexpr,  # start loading the next tile before this one is written
):
    """Several tiles of the result, one after the other, loaded and stored through TMA."""
    half: tl.constexpr = BLOCK_N // 2
    tiles = tl.cdiv(M, BLOCK_M) * tl.cdiv(N, BLOCK_N)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=FLATTEN):
        first_m, first_n = corner(tile, M, N, BLOCK_M, BLOCK_N, GROUP)
        m = first_m + tl.arange(0, BLOCK_M)
        total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for start in range(0, K, BLOCK_K):
            a = X.load([first_m, start])
            b = WEIGHT.load([first_n, start])
            total = tl.dot(a, b.T, total, max_num_imprecise_acc=SUMMED)
        # Writing half of the columns at a time needs fewer registers and less shared memory.
        halves = tl.split(total.reshape(BLOCK_M, 2, half).permute(0, 2, 1))
        for side in tl.static_range(2):
            first = first_n + side * half
            n = first + tl.arange(0, half)
            out = finished(halves[side], m, n, M, N, BIAS, X_SCALE, WEIGHT_SCALE, OUT_SCALE, GELU)
            OUT.store([first_m, first], out)
