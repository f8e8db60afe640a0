"""Matrix product with bias and GELU in its epilogue: the Triton code of ``linear``."""

import triton
import triton.language as tl


@triton.jit
def multiply(
    X,  # [M, K]
    WEIGHT,  # [N, K]
    BIAS,  # [N]
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
    GROUP: tl.constexpr,  # row tiles that share a column tile's weights in the cache
    DOT: tl.constexpr,
):
    """One tile of the result; the order of additions depends on K alone."""
    tile = tl.program_id(0)
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    in_group = GROUP * tiles_n
    first = tile // in_group * GROUP
    rows = tl.minimum(tiles_m - first, GROUP)
    tile_m = first + tile % in_group % rows
    tile_n = tile % in_group // rows
    m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    x = X + (m % M).to(tl.int64)[:, None] * stride_x + k[None, :]
    weight = WEIGHT + (n % N).to(tl.int64)[:, None] * stride_weight + k[None, :]
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        left = (k < K - start)[None, :]
        a = tl.load(x + start, mask=left, other=0.0)
        b = tl.load(weight + start, mask=left, other=0.0)
        total = tl.dot(a, tl.trans(b), total, input_precision=DOT)
    total += tl.load(BIAS + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    if GELU:
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    target = OUT + m.to(tl.int64)[:, None] * stride_out + n[None, :]
    mask = (m < M)[:, None] & (n < N)[None, :]
    tl.store(target, total.to(OUT.dtype.element_ty), mask=mask)
