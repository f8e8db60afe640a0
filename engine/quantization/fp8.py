"""BERT encoders with matrix products in fp8: one scale per output for weights, one per token.

Everything else (embeddings, attention, residual adds, norms) stays in 16 bits. The inputs of a
product are already quantized by the norm or the product before it; only the results of attention
are quantized in a pass of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from xtremely.engine.models.bert import Bert, Layer
from xtremely.engine.models.encoder import Encoder
from xtremely.engine.models.ops import Ops
from xtremely.engine.text.batch import Batch
from xtremely.kernels.packing import Layout
from xtremely.kernels.quantise import LARGEST, SMALLEST, quantise_ref

Rows = tuple[Tensor, Tensor]  # values [T, H] e4m3, and one scale per row [T]

ROUNDED_UP = 1 + 2.0**-4  # factor by which rounding to e4m3 can lengthen a row


class Fp8Linear(nn.Module):
    """A linear layer with e4m3 weights and one scale per output.

    Args:
        linear: the layer to quantize.
        precision: dtype of its bias and results, fp16 or bf16.
    """

    def __init__(self, linear: nn.Linear, precision: torch.dtype):
        super().__init__()
        weight, scale = quantise_ref(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", linear.bias.detach().to(precision))
        longest = (weight.float() * scale[:, None]).norm(dim=1).max()
        self.longest, self.largest = float(longest), float(self.bias.abs().max())

    def forward(self, rows: Rows, ops: Ops) -> Tensor:
        """Rows [T, K] to results [T, N] in 16 bits."""
        return ops.linear_fp8(*rows, self.weight, self.scale, self.bias)

    def gelu(self, rows: Rows, lengths: Tensor, ops: Ops) -> Rows:
        """Rows [T, K] through the product and GELU to rows [T, N].

        ``lengths`` [T] are the L2 norms of the rows before quantization. By Cauchy-Schwarz no value
        of the product exceeds its row's length times that of the longest row of weights, and GELU
        increases none. This gives the scales of the result.
        """
        most = lengths * (ROUNDED_UP * self.longest) + self.largest
        scales = (most / LARGEST).clamp_min(SMALLEST)  # a pruned layer's values are all 0
        product = (*rows, self.weight, self.scale, self.bias)
        return ops.linear_fp8(*product, gelu=True, out_scale=scales), scales


class Fp8Layer(nn.Module):
    """``bert.Layer`` with matrix products in fp8."""

    def __init__(self, layer: Layer, precision: torch.dtype):
        super().__init__()
        self.heads = layer.heads
        for name in ("qkv", "attention_out", "up", "down"):
            self.add_module(name, Fp8Linear(getattr(layer, name), precision))
        self.attention_norm = layer.attention_norm.to(precision)
        self.norm = layer.norm.to(precision)

    def forward(self, x: Tensor, rows: Rows, layout: Layout, ops: Ops) -> tuple[Tensor, Rows]:
        """Hidden states [T, H] and their fp8 rows, before this layer to after it."""

        def norm(
            module: nn.LayerNorm, value: Tensor, residual: Tensor
        ) -> tuple[Tensor, Rows, Tensor]:
            parts = (module.weight, module.bias, module.eps)
            out, values, scales, lengths = ops.norm_fp8(value, residual, *parts)
            return out, (values, scales), lengths

        mixed = ops.attention(self.qkv(rows, ops), layout, self.heads)
        mixed = self.attention_out(ops.quantise(mixed), ops)
        x, rows, lengths = norm(self.attention_norm, mixed, x)
        wide = self.up.gelu(rows, lengths, ops)
        x, rows, _ = norm(self.norm, self.down(wide, ops), x)
        return x, rows


class Fp8Bert(Encoder):
    """Embeddings and a stack of fp8 layers.

    Args:
        encoder: the encoder in fp32; its embeddings and norms are reused in ``precision``.
        precision: dtype of activations, fp16 or bf16.
    """

    def __init__(self, encoder: Bert, precision: torch.dtype):
        super().__init__(encoder.config)
        self.embeddings = encoder.embeddings.to(precision)
        self.layers = nn.ModuleList(Fp8Layer(layer, precision) for layer in encoder.layers)

    def states(self, batch: Batch, ops: Ops) -> Iterator[Tensor]:
        """Hidden states 0, 1, ..., each [T, H]."""
        x = self.embeddings(batch, ops)
        yield x
        rows = ops.quantise(x)
        for layer in self.layers:
            x, rows = layer(x, rows, batch.layout, ops)
            yield x
