"""The BERT family with its matrix products in fp8: weights rounded once, activations row by row.

Everything else (embeddings, attention, residual adds, norms) stays in 16 bits. A product's inputs
come out of the norm before it already rounded; only attention's and GELU's results take a pass of
their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from xtremely.engine.batch import Batch
from xtremely.engine.bert import Bert, Layer
from xtremely.engine.encoder import Encoder
from xtremely.engine.ops import Ops
from xtremely.kernels.packing import Layout
from xtremely.kernels.quantise import quantise_ref

Rows = tuple[Tensor, Tensor]  # values [T, H] e4m3, and a scale a row [T]


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

    def forward(self, rows: Rows, ops: Ops, gelu: bool = False) -> Tensor:
        """[T, K] rows to [T, N]."""
        return ops.linear_fp8(*rows, self.weight, self.scale, self.bias, gelu)


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

        def norm(module: nn.LayerNorm, value: Tensor, residual: Tensor) -> tuple[Tensor, Rows]:
            out, *found = ops.norm_fp8(value, residual, module.weight, module.bias, module.eps)
            return out, tuple(found)

        mixed = ops.attention(self.qkv(rows, ops), layout, self.heads)
        x, rows = norm(self.attention_norm, self.attention_out(ops.quantise(mixed), ops), x)
        wide = self.up(rows, ops, gelu=True)
        return norm(self.norm, self.down(ops.quantise(wide), ops), x)


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
