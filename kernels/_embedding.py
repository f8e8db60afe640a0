"""Embedding gather, sum and LayerNorm: the Triton kernel of ``embedding``."""

import triton
import triton.language as tl


@triton.jit
def embed_norm(
    WORD_IDS,  # [T]
    POSITION_IDS,  # [T]
    TYPE_IDS,  # [T]
    WORDS,  # [vocabulary, H]
    POSITIONS,  # [positions, H] or None
    TYPES,  # [types, H] or None
    WEIGHT,  # [H]
    BIAS,  # [H]
    OUT,  # [T, H]
    stride_words,
    stride_positions,
    stride_types,
    eps,
    H: tl.constexpr,
    COLUMNS: tl.constexpr,  # H, rounded up to a power of two
):
    """One token: one row of each table is loaded; they are summed and normalised in registers."""
    token = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, COLUMNS)
    mask = at < H
    word = tl.load(WORD_IDS + token).to(tl.int64)
    x = tl.load(WORDS + word * stride_words + at, mask=mask, other=0.0).to(tl.float32)
    if POSITIONS is not None:
        place = tl.load(POSITION_IDS + token).to(tl.int64) * stride_positions
        x += tl.load(POSITIONS + place + at, mask=mask, other=0.0).to(tl.float32)
    if TYPES is not None:
        place = tl.load(TYPE_IDS + token).to(tl.int64) * stride_types
        x += tl.load(TYPES + place + at, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x, 0) / H
    centred = tl.where(mask, x - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / H + eps)
    weight = tl.load(WEIGHT + at, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(BIAS + at, mask=mask, other=0.0).to(tl.float32)
    normed = centred * scale * weight + bias
    tl.store(OUT + token * H + at, normed.to(OUT.dtype.element_ty), mask=mask)
