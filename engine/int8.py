"""The BERT family with its matrix products in int8 on a CPU, by oneDNN's kernels in torch.

Weights are rounded once, tokens one by one as they come out of the step before, each with a scale
of its own, so that a sentence's result does not depend on its company; see ``rounding``. Attention,
residual adds and norms stay in fp32. What lies between two products is one function each, written
in plain torch and compiled by ``torch.compile`` into one pass; where there is no C++ compiler, the
functions run as they are written, more slowly.
"""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xtremely.engine.batch import Batch
from xtremely.engine.bert import Bert, Layer
from xtremely.engine.encoder import Encoder
from xtremely.engine.ops import Ops
from xtremely.engine.rounding import GELU_FLOOR, Peaks, balance, rounded_in_pairs
from xtremely.kernels.packing import Layout

ZERO = 128  # the byte that stands for 0
FLOOR = float(GELU_FLOOR)
LEAST = 1e-12
SHORT = 16  # tokens of a sequence, up to which attention without matrix products is faster
# The normal distribution's integral from 0 to z is z times a polynomial in z^2, to 3e-5 within
# the reach; GELU is then off by less than 1e-4, a fraction of a step of what it is rounded to.
REACH = 4.25
PHI = (
    0.398854523897171,
    -0.0662292093038559,
    0.009734194725751877,
    -0.0010820417664945126,
    8.87935675564222e-05,
    -5.164022240933264e-06,
    1.9900562620023265e-07,
    -4.514764562202345e-09,
    4.5344228372101725e-11,
)


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
        lifted: whether its inputs are GELU's results, ``FLOOR`` added and no zero point.

    Attributes:
        reader: [K] what inputs are multiplied by before they are rounded.
        taken: [N] what to take off for every step of a token's scale.
        bias: [N].
    """

    def __init__(self, linear: nn.Linear, peak: Tensor | None = None, lifted: bool = False):
        super().__init__()
        weight = linear.weight.detach()
        factor = torch.ones(weight.shape[1]) if peak is None else balance(peak, weight)
        values, scale = rounded_in_pairs((weight * factor).numpy())
        sums = torch.from_numpy((values.astype("f8").sum(axis=1) * scale[:, 0]).astype("f4"))
        self.register_buffer("reader", 1 / factor)
        self.register_buffer("scale", torch.from_numpy(scale[:, 0]))
        self.register_buffer("taken", sums * (0 if lifted else ZERO))
        self.register_buffer("bias", linear.bias.detach() - (FLOOR * sums if lifted else 0))
        self.register_buffer("zeros", torch.zeros(len(sums), dtype=torch.int64))
        self.weight = torch.ops.onednn.qlinear_prepack(torch.from_numpy(values), None)

    def forward(self, rows: Rows) -> Tensor:
        """[T, K] tokens to [T, N] fp32, before their scales, ``taken`` and ``bias``."""
        return torch.ops.onednn.qlinear_pointwise(
            rows.values,
            1.0,
            0,
            self.weight,
            self.scale,
            self.zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )


def rows_of(x: Tensor, reader: Tensor) -> tuple[Tensor, Tensor]:
    """[T, K] tokens times [K], rounded to 127 steps to either side of ``ZERO``."""
    x = x * reader
    scale = x.abs().amax(dim=1, keepdim=True).clamp(min=LEAST) / 127
    return (x / scale + (ZERO + 0.5)).to(torch.uint8), scale


def finished(y: Tensor, scale: Tensor, taken: Tensor, bias: Tensor) -> Tensor:
    """A product [T, N] with its tokens' scales, zero point and bias."""
    return (y - taken) * scale + bias


def normed(
    y: Tensor,
    scale: Tensor,
    taken: Tensor,
    bias: Tensor,
    residual: Tensor,
    weight: Tensor,
    shift: Tensor,
    eps: float,
    reader: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """A finished product, added to a residual and normalised; and that as ``rows_of`` has it."""
    x = finished(y, scale, taken, bias) + residual
    x = nn.functional.layer_norm(x, x.shape[-1:], weight, shift, eps)
    return x, *rows_of(x, reader)


def widened(y: Tensor, scale: Tensor, taken: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A finished product through GELU, lifted above zero, rounded to 255 steps.

    GELU is largest where its input is, or not above zero: no pass over its results is needed.
    """
    x = finished(y, scale, taken, bias)
    scale = (gelu(x.amax(dim=1, keepdim=True).clamp(min=0)) + FLOOR) / 255
    return ((gelu(x) + FLOOR) / scale + 0.5).to(torch.uint8), scale


def gelu(x: Tensor) -> Tensor:
    """GELU to 1e-4, without the error function."""
    z = x.clamp(-REACH, REACH)
    square = z * z
    integral = PHI[8] * square + PHI[7]
    for factor in PHI[6::-1]:
        integral = integral * square + factor
    return x * (0.5 + z * integral)


def attended(qkv: Tensor) -> Tensor:
    """Attention in sequences of one length, [N, L, 3, heads, dim] to [N, L, heads, dim], without
    matrix products: below ``SHORT`` tokens these are all overhead.
    """
    q, k, v = qkv.unbind(2)
    scores = (q[:, :, None] * k[:, None]).sum(dim=-1) * q.shape[-1] ** -0.5
    shares = scores.softmax(dim=2)  # [N, L, L, heads]
    return (shares[..., None] * v[:, None]).sum(dim=2)


class Steps(NamedTuple):
    """What lies between the products: the functions above, or their compiled forms."""

    rows_of: Callable[..., Any]
    finished: Callable[..., Any]
    normed: Callable[..., Any]
    widened: Callable[..., Any]
    attended: Callable[..., Any] | None


PLAIN = Steps(rows_of, finished, normed, widened, None)  # attended needs to be compiled to be fast


def varying(step: Callable[..., Any], axes: tuple[int, ...] = (0,)) -> Callable[..., Any]:
    """A step whose tensors are marked as having sizes of ``axes`` that vary, so that it is compiled
    once for all.
    """

    def call(*arguments: Any) -> Any:
        for one in arguments:
            if isinstance(one, Tensor) and one.ndim > 1:
                for axis in axes:
                    torch._dynamo.maybe_mark_dynamic(one, axis)
        return step(*arguments)

    return call


def lacking(device: torch.device) -> str:
    """Why int8 products do not run on a device; empty if they do."""
    if device.type != "cpu":
        return f"computes on the CPU, --device is {device}"
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"needs a processor of the x86-64 line, not {platform.machine()}"
    return "" if torch.backends.mkldnn.is_available() else "needs a torch with oneDNN"


def compiles() -> bool:
    """Whether there is a C++ compiler where Inductor looks for one."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


class Int8Layer(nn.Module):
    """``bert.Layer`` on rounded tokens."""

    def __init__(self, layer: Layer, peaks: Peaks):
        super().__init__()
        self.heads = layer.heads
        self.qkv = Int8Linear(layer.qkv, peaks[id(layer.qkv.weight)])
        self.attention_out = Int8Linear(layer.attention_out)
        self.up = Int8Linear(layer.up, peaks[id(layer.up.weight)])
        self.down = Int8Linear(layer.down, lifted=True)
        self.attention_norm, self.norm = layer.attention_norm, layer.norm

    def forward(
        self, x: Tensor, rows: Rows, reader: Tensor, layout: Layout, ops: Ops, steps: Steps
    ) -> tuple[Tensor, Rows]:
        """[T, H] and its rows to the same, the latter for whoever has the ``reader``."""

        def norm(
            module: nn.LayerNorm, linear: Int8Linear, given: Rows, residual: Tensor, to: Tensor
        ) -> tuple[Tensor, Rows]:
            product = (linear(given), given.scale, linear.taken, linear.bias)
            affine = (module.weight, module.bias, module.eps)
            out, *rounded = steps.normed(*product, residual, *affine, to)
            return out, Rows(*rounded)

        qkv = steps.finished(self.qkv(rows), rows.scale, self.qkv.taken, self.qkv.bias)
        mixed = self._attention(qkv, layout, ops, steps)
        mixed = Rows(*steps.rows_of(mixed, self.attention_out.reader))
        x, rows = norm(self.attention_norm, self.attention_out, mixed, x, self.up.reader)
        wide = steps.widened(self.up(rows), rows.scale, self.up.taken, self.up.bias)
        return norm(self.norm, self.down, Rows(*wide), x, reader)

    def _attention(self, qkv: Tensor, layout: Layout, ops: Ops, steps: Steps) -> Tensor:
        """``ops.attention``, but for runs of short sequences where there is a step for them."""
        if steps.attended is None:
            return ops.attention(qkv, layout, self.heads)
        out = torch.empty(len(qkv), qkv.shape[1] // 3)
        for run in layout.runs:
            block = qkv[run.rows].view(run.count, run.length, 3, self.heads, -1)
            if run.count > 1 and 1 < run.length <= SHORT:
                mixed = steps.attended(block)
            else:
                q, k, v = block.permute(2, 0, 3, 1, 4)
                mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
            out[run.rows].view(mixed.shape).copy_(mixed)
        return out


class Int8Bert(Encoder):
    """Embeddings and a stack of int8 layers.

    Args:
        encoder: in fp32, on the CPU; its layers are taken over.
        peaks: see ``rounding.peaks``.
    """

    def __init__(self, encoder: Bert, peaks: Peaks):
        super().__init__(encoder.config)
        self.embeddings = encoder.embeddings
        self.layers = nn.ModuleList(Int8Layer(layer, peaks) for layer in encoder.layers)
        readers = [layer.qkv.reader for layer in self.layers]
        self.readers = [*readers[1:], torch.ones(encoder.config.hidden)]
        self.steps = PLAIN

    @torch.inference_mode()
    def compile(self, batch: Batch, ops: Ops) -> None:
        """Compile what lies between the products, on a batch; what a machine compiled once, it
        reads from disk.
        """
        fast = Steps(*(torch.compile(step) for step in (*PLAIN[:-1], attended)))
        self.steps = Steps(*map(varying, fast[:-1]), varying(fast.attended, (0, 1)))
        dim = self.config.hidden // self.config.heads
        runs = torch.zeros(3, SHORT, 3, self.config.heads, dim)
        try:
            for run in (runs[:2], runs[1:]):  # at the head of a tensor, and inside it
                self.steps.attended(run)
            self(batch, [self.config.layers], ops)
            self.steps = fast
        except Exception as error:  # whatever stands between Inductor and a C++ compiler
            self.steps = PLAIN
            reason = str(error).strip().split("\n")[0][:120]
            warnings.warn(
                f"int8 runs without torch.compile, far more slowly ({reason}); install a C++"
                " compiler, or take --backend onnx",
                stacklevel=2,
            )

    def states(self, batch: Batch, ops: Ops) -> Iterator[Tensor]:
        """Hidden states 0, 1, ..., each [T, H]."""
        x = self.embeddings(batch, ops)
        yield x
        rows = Rows(*self.steps.rows_of(x, self.layers[0].qkv.reader))
        for layer, reader in zip(self.layers, self.readers, strict=True):
            x, rows = layer(x, rows, reader, batch.layout, ops, self.steps)
            yield x
