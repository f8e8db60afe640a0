"""The BERT family with its matrix products in int8: the readable reference of the C++.

Weights are rounded once, tokens one by one as they come out of the step before, each with a scale
of its own, so that a sentence's result does not depend on its company; see ``rounding``. Attention,
residual adds and norms stay in fp32. Whole numbers are multiplied in fp64 here, slowly and exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from xtremely.engine.models.bert import Bert, Layer
from xtremely.engine.models.encoder import Encoder
from xtremely.engine.models.ops import Ops
from xtremely.engine.quantization.smoothquant import (
    GELU_FLOOR,
    Absmax,
    quantize_in_pairs,
    smoothing_factors,
)
from xtremely.engine.text.batch import Batch
from xtremely.kernels.packing import Layout

ZERO = 128  # the byte that stands for 0
FLOOR = float(GELU_FLOOR)
MIN_SCALE = 1e-12


class Rows(NamedTuple):
    """Tokens in unsigned bytes.

    Attributes:
        values: [T, K] uint8.
        scale: [T, 1] fp32, a step of each token.
    """

    values: Tensor
    scale: Tensor


class Int8Linear(nn.Module):
    """A linear layer on rounded tokens.

    Args:
        linear: the layer it is made from, in fp32.
        peak: [K] largest size of its inputs, by which they are balanced; None for inputs that are
            rounded as they are.
        shifted: whether its inputs are GELU's results, ``FLOOR`` added and no zero point.

    Attributes:
        weight: [N, K] int8.
        input_scale: [K] what inputs are multiplied by before they are rounded.
        scale: [N] a step of each output's weights.
        zero_point_correction: [N] what to take off a product for the inputs' zero point.
        bias: [N].
    """

    def __init__(self, linear: nn.Linear, peak: Tensor | None = None, shifted: bool = False):
        super().__init__()
        weight = linear.weight.detach()
        factor = torch.ones(weight.shape[1]) if peak is None else smoothing_factors(peak, weight)
        values, scale = quantize_in_pairs((weight * factor).numpy())
        sums = torch.from_numpy((values.astype("f8").sum(axis=1) * scale[:, 0]).astype("f4"))
        self.register_buffer("weight", torch.from_numpy(values))
        self.register_buffer("input_scale", 1 / factor)
        self.register_buffer("scale", torch.from_numpy(scale[:, 0]))
        self.register_buffer("zero_point_correction", sums * (0 if shifted else ZERO))
        self.register_buffer("bias", linear.bias.detach() - (FLOOR * sums if shifted else 0))

    def quantize(self, x: Tensor) -> Rows:
        """[T, K] tokens, to 127 steps to either side of ``ZERO``."""
        x = x * self.input_scale
        top = x.abs().amax(dim=1, keepdim=True).clamp(min=MIN_SCALE)
        return Rows((x * (127 / top) + (ZERO + 0.5)).to(torch.uint8), top / 127)

    def forward(self, rows: Rows) -> Tensor:
        """[T, K] tokens to [T, N] fp32."""
        y = (rows.values.double() @ self.weight.double().T).float()
        return (y * self.scale - self.zero_point_correction) * rows.scale + self.bias


def widened(x: Tensor) -> Rows:
    """[T, K] tokens through GELU, lifted above zero, rounded to 255 steps.

    GELU is largest where its input is, or not above zero: no pass over its results is needed.
    """
    top = gelu(x.amax(dim=1, keepdim=True).clamp(min=0)) + FLOOR
    return Rows(((gelu(x) + FLOOR) * (255 / top) + 0.5).to(torch.uint8), top / 255)


class Int8Layer(nn.Module):
    """``bert.Layer`` on rounded tokens."""

    def __init__(self, layer: Layer, activation_absmax: Absmax):
        super().__init__()
        self.heads = layer.heads
        self.qkv = Int8Linear(layer.qkv, activation_absmax[id(layer.qkv.weight)])
        self.attention_out = Int8Linear(layer.attention_out)
        self.up = Int8Linear(layer.up, activation_absmax[id(layer.up.weight)])
        self.down = Int8Linear(layer.down, shifted=True)
        self.attention_norm, self.norm = layer.attention_norm, layer.norm

    def forward(self, x: Tensor, layout: Layout, ops: Ops) -> Tensor:
        """[T, H] to [T, H]; ``layout`` says where the sequences lie."""

        def linear(module: Int8Linear, value: Tensor) -> Tensor:
            return module(module.quantize(value))

        def norm(module: nn.LayerNorm, value: Tensor, residual: Tensor) -> Tensor:
            return ops.norm(value, residual, module.weight, module.bias, module.eps)

        mixed = ops.attention(linear(self.qkv, x), layout, self.heads)
        x = norm(self.attention_norm, linear(self.attention_out, mixed), x)
        return norm(self.norm, self.down(widened(linear(self.up, x))), x)


class Int8Bert(Encoder):
    """Embeddings and a stack of int8 layers.

    Args:
        encoder: in fp32, on the CPU; its embeddings and norms are taken over.
        activation_absmax: see ``smoothquant.activation_absmax``.
    """

    def __init__(self, encoder: Bert, activation_absmax: Absmax):
        super().__init__(encoder.config)
        self.embeddings = encoder.embeddings
        self.layers = nn.ModuleList(Int8Layer(layer, activation_absmax) for layer in encoder.layers)

    def states(self, batch: Batch, ops: Ops) -> Iterator[Tensor]:
        """Hidden states 0, 1, ..., each [T, H]."""
        x = self.embeddings(batch, ops)
        yield x
        for layer in self.layers:
            x = layer(x, batch.layout, ops)
            yield x
