"""What keeps the rounding of an encoder's linear layers in int8 small.

A token has one scale, so a channel that is far larger than the others costs all of them precision,
and the channels that a norm makes differ most. They are balanced against the weights that read
them, a factor a channel, after Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training
Quantization for Large Language Models" (ICML 2023); how large they get is seen on ``samples``.
GELU's results begin just below zero: lifted above it, they fill all 256 steps instead of half.
Without VNNI a processor adds two neighbouring products in 16 bits, where two large weights
overflow: an exported file's weights have 100 steps instead of 127, so that hardly any two do; where
it is known which products are neighbours, every row has as many steps as no two of its overflow.
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
SHARE = 0.65  # of a channel's size that is moved into the weights, as a power; LOG.md has others
WEIGHT_LEVELS = 100  # of a weight
IN_PAIRS = 127  # steps of two neighbours together: 128 fit, of which rounding may add one
MIN_ABSMAX = 1e-5

ActivationAbsmax = Mapping[
    int, Tensor
]  # id of a linear layer's weight -> [K] largest size of its inputs


def activation_absmax(encoder: Encoder, batch: Batch) -> ActivationAbsmax:
    """How large every input of every linear layer gets on a batch."""
    found: dict[int, Tensor] = {}

    def linear(x: Tensor, weight: Tensor, *rest: object) -> Tensor:
        found[id(weight)] = x.abs().amax(dim=0)
        return TORCH.linear(x, weight, *rest)

    encoder(batch, [encoder.config.layers], replace(TORCH, linear=linear))
    return found


def smoothing_factors(peak: Tensor, weight: Tensor) -> Tensor:
    """Factors [K] by which inputs are divided and weights [N, K] multiplied; their geometric mean
    is 1.
    """
    inputs, weights = peak.clamp(min=MIN_ABSMAX), weight.abs().amax(dim=0).clamp(min=MIN_ABSMAX)
    factors = inputs**SHARE / weights ** (1 - SHARE)
    return factors / factors.log().mean().exp()


def quantize(weights: np.ndarray, levels: int = WEIGHT_LEVELS) -> tuple[np.ndarray, np.ndarray]:
    """Values in int8 [N, K], at most ``levels``, and a scale in fp32 [N, 1] a row: value * scale."""
    scale = np.maximum(np.abs(weights).max(axis=1, keepdims=True), 1e-12) / np.float32(levels)
    return np.round(weights / scale).astype(np.int8), scale.astype(np.float32)


def quantize_in_pairs(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``quantize`` with as many steps a row, up to 127, as keep products with unsigned bytes exact.

    Neighbours' products, of columns 0 and 1, 2 and 3, ..., are added in 16 bits: what two weights
    of one sign add up to stays below 2^15 / 255. Weights of two signs cancel, so one of them alone
    is the most that they reach.
    """
    padded = np.pad(weights, ((0, 0), (0, weights.shape[1] % 2)))
    pairs = padded.reshape(len(weights), -1, 2)
    together = np.where(pairs.prod(axis=2) > 0, np.abs(pairs).sum(axis=2), 0).max(axis=1)
    largest = np.abs(weights).max(axis=1)
    scale = np.maximum(np.maximum(largest / 127, together / IN_PAIRS), 1e-12)[:, None]
    return np.round(weights / scale).astype(np.int8), scale.astype(np.float32)
