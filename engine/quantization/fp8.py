"""The BERT family with its matrix products in fp8: weights rounded once, activations row by row.

Everything else (embeddings, attention, residual adds, norms) stays in 16 bits. A product's inputs
come out of the norm or of the product before it already rounded; only attention's results take a
pass of their own.
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
from xtremely.kernels.quantise import LARGEST, quantise_ref

Rows = tuple[Tensor, Tensor]  # values [T, H] e4m3, and a scale a row [T]

ROUNDED_UP = 1 + 2.0**-4  # by how much rounding to e4m3 can lengthen a row


class Fp8Linear(nn.Module):
    """A linear layer whose weight is e4m3 with a scale an output.

    Args:
        linear: the layer it is made from.
        precision: of its bias and results, fp16 or bf16.
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
        """[T, K] rows to [T, N]."""
        return ops.linear_fp8(*rows, self.weight, self.scale, self.bias)

    def gelu(self, rows: Rows, lengths: Tensor, ops: Ops) -> Rows:
        """[T, K] rows, of unrounded lengths [T], through the product and GELU to [T, N] rows.

        No value of the product exceeds its row's length times the longest row of weights (Cauchy
        and Schwarz), and GELU makes none larger: that gives the result's scales.
        """
        most = lengths * (ROUNDED_UP * self.longest) + self.largest
        scales = most / LARGEST
        product = (*rows, self.weight, self.scale, self.bias)
        return ops.linear_fp8(*product, gelu=True, out_scale=scales), scales


class Fp8Layer(nn.Module):
    """``bert.Layer`` on fp8 rows."""

    def __init__(self, layer: Layer, precision: torch.dtype):
        super().__init__()
        self.heads = layer.heads
        for name in ("qkv", "attention_out", "up", "down"):
            self.add_module(name, Fp8Linear(getattr(layer, name), precision))
        self.attention_norm = layer.attention_norm.to(precision)
        self.norm = layer.norm.to(precision)

    def forward(self, x: Tensor, rows: Rows, layout: Layout, ops: Ops) -> tuple[Tensor, Rows]:
        """[T, H] and its fp8 rows to the same."""

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
        encoder: in fp32; its layers are taken over.
        precision: of activations, fp16 or bf16.
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
