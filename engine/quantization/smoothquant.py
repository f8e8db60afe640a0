"""SmoothQuant for the linear layers of an encoder, and int8 quantization of their weights.

Inputs are quantized per token, so one channel that is much larger than the others costs all of them
precision. Smoothing moves a part of each channel's magnitude into the weights, by one factor per
channel: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models" (ICML 2023). Magnitudes are measured on ``calibration_texts``.

GELU's results are never below -0.17. Shifted by that, they fill all 256 levels instead of half.

An x86-64 processor without VNNI adds products in 16 bits, where large weights can overflow. Weights
of an exported file therefore have 100 levels instead of 127, so that overflow is rare: libraries
add two products there. Our own C++ adds four, which saves instructions. It gives each row as many
levels as are possible without any overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from xtremely.engine.models.encoder import Encoder
from xtremely.engine.models.ops import TORCH
from xtremely.engine.text.batch import Batch

GELU_FLOOR = np.float32(0.17)  # GELU is never below -0.16998
ALPHA = 0.65  # exponent: the share of a channel's magnitude that moves into the weights
WEIGHT_LEVELS = 100  # levels of weights on either side of zero
IN_FOURS = 126  # levels of four weights together: 128 fit, and rounding can add two
MIN_ABSMAX = 1e-5

Absmax = Mapping[int, Tensor]  # id of a linear layer's weight -> [K] absmax of its inputs


def activation_absmax(encoder: Encoder, batch: Batch) -> tuple[Absmax, Tensor]:
    """Absmax of every input channel of every linear layer, on a batch: weight id -> [K]; and the
    last hidden state [T, H].
    """
    found: dict[int, Tensor] = {}

    def linear(x: Tensor, weight: Tensor, *rest: object) -> Tensor:
        found[id(weight)] = x.abs().amax(dim=0)
        return TORCH.linear(x, weight, *rest)

    last = encoder.config.layers
    return found, encoder(batch, [last], replace(TORCH, linear=linear))[last]


def smoothing_factors(peak: Tensor, weight: Tensor) -> Tensor:
    """Factors [K] that divide inputs and multiply weights [N, K]; their geometric mean is 1.

    ``peak`` [K] is the absmax of the inputs.
    """
    inputs, weights = peak.clamp(min=MIN_ABSMAX), weight.abs().amax(dim=0).clamp(min=MIN_ABSMAX)
    factors = inputs**ALPHA / weights ** (1 - ALPHA)
    return factors / factors.log().mean().exp()


def quantize(weights: np.ndarray, levels: int = WEIGHT_LEVELS) -> tuple[np.ndarray, np.ndarray]:
    """int8 values [N, K] of at most ``levels``, and one fp32 scale per row [N, 1]."""
    scale = np.maximum(np.abs(weights).max(axis=1, keepdims=True), 1e-12) / np.float32(levels)
    return np.round(weights / scale).astype(np.int8), scale.astype(np.float32)


def quantize_in_fours(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``quantize`` with as many levels per row, up to 126, as never overflow in 16-bit sums.

    The products of columns 0, 1, 4 and 5 with unsigned bytes are added in 16 bits, and those of
    columns 2, 3, 6 and 7; and so on for every eight columns. So weights of one sign must add up to
    less than 2^15 / 255. Products of weights with opposite signs take each other off.
    """
    padded = np.pad(weights, ((0, 0), (0, -weights.shape[1] % 8)))
    fours = padded.reshape(len(weights), -1, 2, 2, 2)  # row, eight columns, half, pair, neighbour
    positive, negative = (
        np.maximum(sign * fours, 0).sum(axis=(2, 4)).max(axis=(1, 2)) for sign in (1, -1)
    )
    scale = np.maximum(np.maximum(positive, negative) / IN_FOURS, 1e-12)[:, None]
    return np.round(weights / scale).astype(np.int8), scale.astype(np.float32)
