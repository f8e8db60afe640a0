"""Encoders with matrix products in int8: the readable reference of the C++ backend.

Weights are quantized once per output, activations per token, so that a sentence's result does not
depend on the rest of its batch; see ``smoothquant``. Attention is in int8 in sequences of
``INT8_LENGTH`` tokens or more; in shorter ones it costs too little to gain. Softmax, residual adds
and norms stay in fp32. Integers are multiplied in fp64 here, which is slow and exact.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xtremely.engine.models import bert, modernbert
from xtremely.engine.models.encoder import Encoder
from xtremely.engine.models.ops import Ops
from xtremely.engine.quantization.smoothquant import (
    GELU_FLOOR,
    Absmax,
    quantize_in_fours,
    smoothing_factors,
)
from xtremely.engine.text.batch import Batch
from xtremely.kernels.attention import attention_ref, near, rope_table, rotated
from xtremely.kernels.packing import Layout

ZERO = 128  # the byte that stands for 0
FLOOR = float(GELU_FLOOR)
MIN_SCALE = 1e-12
INT8_LENGTH = 32  # fewest tokens of a sequence whose attention has products in int8
STEPS = (127, 63, 63)  # of queries, keys and values; two products of a byte fit into 16 bits
WEIGHT_STEPS = 255
# Of the odd powers 13, 11, ..., 1.
COARSE_GELU = (
    2.25885515e-8,
    -1.5888477e-6,
    4.77643728e-5,
    -8.12193149e-4,
    8.76372416e-3,
    -6.4554498e-2,
    0.397870337,
)


class Rows(NamedTuple):
    """Activations quantized per token.

    Attributes:
        values: [T, K] uint8.
        scale: [T, 1] fp32, the step size of each token.
    """

    values: Tensor
    scale: Tensor


class Int8Linear(nn.Module):
    """A linear layer on quantized activations.

    Args:
        linear: the layer to quantize, in fp32.
        peak: [K], absmax of its inputs per channel, for smoothing; None for no smoothing.
        shifted: whether its inputs are results of GELU, shifted by ``FLOOR`` and without zero
            point.

    Attributes:
        weight: [N, K] int8.
        input_scale: [K], factors by which inputs are multiplied before they are quantized.
        scale: [N], step size of each output's weights.
        zero_point_correction: [N], the zero point's share of a product, which is subtracted.
        bias: [N].
    """

    def __init__(self, linear: nn.Linear, peak: Tensor | None = None, shifted: bool = False):
        super().__init__()
        weight = linear.weight.detach()
        if weight.is_meta:
            self._lay_out(*weight.shape)
            return
        factor = torch.ones(weight.shape[1]) if peak is None else smoothing_factors(peak, weight)
        values, scale = quantize_in_fours((weight * factor).numpy())
        sums = torch.from_numpy((values.astype("f8").sum(axis=1) * scale[:, 0]).astype("f4"))
        self.register_buffer("weight", torch.from_numpy(values))
        self.register_buffer("input_scale", 1 / factor)
        self.register_buffer("scale", torch.from_numpy(scale[:, 0]))
        self.register_buffer("zero_point_correction", sums * (0 if shifted else ZERO))
        self.register_buffer("bias", linear.bias.detach() - (FLOOR * sums if shifted else 0))

    def _lay_out(self, outputs: int, inputs: int) -> None:
        """Register empty tensors, for values that are loaded afterwards."""
        self.register_buffer("weight", torch.empty(outputs, inputs, dtype=torch.int8))
        self.register_buffer("input_scale", torch.empty(inputs))
        for name in ("scale", "zero_point_correction", "bias"):
            self.register_buffer(name, torch.empty(outputs))

    def quantize(self, x: Tensor) -> Rows:
        """Quantize inputs [T, K] per token, to 127 steps on either side of ``ZERO``."""
        x = x * self.input_scale
        top = x.abs().amax(dim=1, keepdim=True).clamp(min=MIN_SCALE)
        return Rows((x * (127 / top) + (ZERO + 0.5)).to(torch.uint8), top / 127)

    def forward(self, rows: Rows) -> Tensor:
        """Quantized inputs [T, K] to fp32 outputs [T, N]."""
        y = (rows.values.double() @ self.weight.double().T).float()
        return (y * self.scale - self.zero_point_correction) * rows.scale + self.bias

    def of(self, x: Tensor) -> Tensor:
        """Inputs [T, K] in fp32, which are quantized first, to fp32 outputs [T, N]."""
        return self(self.quantize(x))


def coarse_gelu(x: Tensor) -> Tensor:
    """GELU with an error of at most 2e-4, far less than the step to which it is rounded.

    The normal distribution's odd part is a polynomial, fitted from -4 to 4 with the right values at
    both ends.
    """
    z = x.clamp(-4, 4)
    odd = torch.zeros_like(x)
    for coefficient in COARSE_GELU:
        odd = odd * z * z + coefficient
    return x * (odd * z + 0.5)


def widened(x: Tensor) -> Rows:
    """GELU of [T, K] values, shifted above zero by ``FLOOR`` and quantized to 255 steps per token.

    A token's largest positive result of GELU is that of its largest input, so the scale needs no
    pass over the results.
    """
    top = coarse_gelu(x.amax(dim=1, keepdim=True).clamp(min=0)) + FLOOR
    return Rows(((coarse_gelu(x) + FLOOR) * (255 / top) + 0.5).to(torch.uint8), top / 255)


def attention(
    qkv: Tensor, layout: Layout, heads: int, rope: Tensor | None = None, window: int | None = None
) -> Tensor:
    """``kernels.attention.attention`` with products in int8 in all but short sequences."""
    out = attention_ref(qkv, layout, heads, rope, window)
    for run in layout.runs:
        if run.length >= INT8_LENGTH:
            block = qkv[run.rows].view(run.count, run.length, 3, heads, -1)
            q, k, v = block.permute(2, 0, 3, 1, 4)  # each [count, heads, length, dim]
            if rope is not None:
                q, k = (rotated(one, rope[: run.length]) for one in (q, k))
            mixed = _attend(q, k, v, window).transpose(1, 2)
            out[run.rows].view(run.count, run.length, heads, -1).copy_(mixed)
    return out


def _attend(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Attention in sequences of one length: q, k, v to results, each [..., length, dim].

    Every query, key and value has a step size. Those of values are multiplied into the weights,
    which are rounded to bytes with one step size a row. So a row's bytes measure shares of its
    result: a token that gets most of the weight, but has a small value, does not displace others.
    """

    def rounded(x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        top = x.abs().amax(dim=-1, keepdim=True).clamp(min=MIN_SCALE)
        return (x * (steps / top)).round().double(), top / steps

    (q, q_scale), (k, k_scale), (v, v_scale) = map(rounded, (q, k, v), STEPS)
    scores = (q @ k.mT).float() * (q_scale / math.sqrt(q.shape[-1])) * k_scale.mT
    if window is not None:
        scores = scores.masked_fill(~near(q.shape[-2], window, q.device), -math.inf)
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    shares = weights * v_scale.mT
    top = shares.amax(dim=-1, keepdim=True)
    shares = (shares * (WEIGHT_STEPS / top) + 0.5).floor().double()
    return (shares @ v).float() * (top / (WEIGHT_STEPS * weights.sum(dim=-1, keepdim=True)))


class Int8Layer(nn.Module):
    """An encoder layer with matrix products in int8.

    Args:
        layer: the layer in fp32; its norms are reused.
        activation_absmax: see ``smoothquant.activation_absmax``.
    """

    def __init__(self, layer: bert.Layer | modernbert.Layer, activation_absmax: Absmax):
        super().__init__()

        def smoothed(linear: nn.Linear) -> Int8Linear:
            return Int8Linear(linear, activation_absmax[id(linear.weight)])

        self.heads = layer.heads
        self.qkv = smoothed(layer.qkv)
        self.attention_out = Int8Linear(layer.attention_out)
        self.up = smoothed(layer.up)
        gated = isinstance(layer, modernbert.Layer)
        self.down = smoothed(layer.down) if gated else Int8Linear(layer.down, shifted=True)
        self.attention_norm, self.norm = layer.attention_norm, layer.norm


class BertLayer(Int8Layer):
    """``bert.Layer`` with matrix products in int8."""

    def forward(self, x: Tensor, layout: Layout, ops: Ops) -> Tensor:
        """[T, H] to [T, H]; ``layout`` holds the sequence boundaries."""

        def norm(module: nn.LayerNorm, value: Tensor, residual: Tensor) -> Tensor:
            return ops.norm(value, residual, module.weight, module.bias, module.eps)

        mixed = attention(self.qkv.of(x), layout, self.heads)
        x = norm(self.attention_norm, self.attention_out.of(mixed), x)
        return norm(self.norm, self.down(widened(self.up.of(x))), x)


class ModernBertLayer(Int8Layer):
    """``modernbert.Layer`` with matrix products in int8."""

    def __init__(self, layer: modernbert.Layer, activation_absmax: Absmax):
        super().__init__(layer, activation_absmax)
        self.rope = partial(rope_table, layer.positions, layer.dim, layer.theta)
        self.window = layer.window

    def forward(self, x: Tensor, normed: Tensor, layout: Layout, ops: Ops) -> tuple[Tensor, Tensor]:
        """The residual stream and its norm, each [T, H], before this layer to those after it."""

        def prenorm(module: nn.LayerNorm, value: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
            return ops.prenorm(value, residual, module.weight, module.bias, module.eps)

        rope = self.rope(x.device)
        mixed = attention(self.qkv.of(normed), layout, self.heads, rope, self.window)
        x, normed = prenorm(self.attention_norm, self.attention_out.of(mixed), x)
        value, gate = self.up.of(normed).chunk(2, dim=1)
        return prenorm(self.norm, self.down.of(coarse_gelu(value) * gate), x)


class Int8Encoder(Encoder):
    """Embeddings and a stack of int8 layers.

    Args:
        encoder: a BERT or ModernBERT encoder in fp32, on the CPU; its embeddings and norms are
            reused.
        activation_absmax: see ``smoothquant.activation_absmax``.
    """

    def __init__(self, encoder: Encoder, activation_absmax: Absmax):
        super().__init__(encoder.config)
        self.embeddings = encoder.embeddings
        self.modern = isinstance(encoder, modernbert.ModernBert)
        layer = ModernBertLayer if self.modern else BertLayer
        self.layers = nn.ModuleList(layer(one, activation_absmax) for one in encoder.layers)

    @classmethod
    def restored(cls, encoder: Encoder, tensors: Mapping[str, Tensor]) -> Int8Encoder:
        """The encoder whose ``quantized_tensors`` these are, made from the same fp32 encoder."""
        with torch.device("meta"):
            skeleton = type(encoder)(encoder.config)
            made = cls(skeleton, defaultdict(lambda: torch.empty(0)))
        made.load_state_dict({**encoder.state_dict(), **tensors}, assign=True)
        return made

    def quantized_tensors(self) -> dict[str, Tensor]:
        """The tensors of all linear layers, by their names in ``state_dict``."""
        return {
            f"{name}.{part}": tensor
            for name, module in self.named_modules()
            if isinstance(module, Int8Linear)
            for part, tensor in module.state_dict().items()
        }

    def states(self, batch: Batch, ops: Ops) -> Iterator[Tensor]:
        """Hidden states 0, 1, ..., each [T, H], as those of the fp32 encoder."""
        x = normed = self.embeddings(batch, ops)
        yield x
        for number, layer in enumerate(self.layers, start=1):
            if self.modern:
                x, normed = layer(x, normed, batch.layout, ops)
            else:
                x = normed = layer(x, batch.layout, ops)
            yield x if number < len(self.layers) else normed
