"""Compares hidden states and vectors, relative to their spread.

A difference is the root mean square over the channels of a row, divided by the spread of the
expected rows: the root mean square of what remains when every channel's mean is subtracted. The
spread is what tells texts apart. e5's vectors, for instance, are close to their mean, so relative
to their size even unrelated vectors differ little. Two unrelated rows differ by about 1.4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokens
from xtremely.engine.transfer import Finish, to_host
from xtremely.eval.check.finding import Finding
from xtremely.eval.check.sample import Sample

# Precision -> largest difference that passes.
# fp32: of any token. Rounding alone gives up to 1e-4, in e5-small's least stable token; a position
# that is shifted by one gives 0.3.
FP32 = 1e-3
# Other precisions: of the median token of any text, as single tokens are unstable: one of e5-small
# differs by 1.1 in int8, in a text whose vector is right. These limits find broken results. They
# are several times what e5-small's worst text has (fp16 0.008, bf16 0.08, fp8 0.14, int8 0.2), and
# at most half of what unrelated states have: int8 costs a random model 0.5. The cosines of the
# vectors say how good a precision is.
LIMITS = {"fp32": FP32, "fp16": 0.05, "bf16": 0.3, "fp8": 0.7, "int8": 0.7}
# In the output of the embeddings, where a shifted position gives 0.2 and int8 tables 0.02.
EMBEDDINGS = 0.1
LEAST_SPREAD = 1e-2  # of the size of rows that hardly vary: their rounding depends on their size


def states_of(engine: Engine, tokens: Tokens, layers: Collection[int]) -> dict[int, Tensor]:
    """Hidden states of N sequences from an engine, each [T, H] fp32 in the order of the tokens.

    Raises:
        InputError: see ``Engine.run``.
    """
    shape = len(tokens.ids), engine.backend.width
    found = {layer: torch.empty(shape) for layer in layers}

    def take(states: dict[int, Tensor], batch: Batch) -> Finish:
        rows = rows_of(tokens, batch)
        copies = {layer: to_host(states[layer].float()) for layer in layers}

        def finish() -> None:
            for layer, copied in copies.items():
                found[layer][rows] = copied()

        return finish

    engine.run(tokens, layers, take)
    return found


def rows_of(tokens: Tokens, batch: Batch) -> Tensor:
    """[T of the batch] the row of each of a batch's tokens among all ``tokens``."""
    starts = torch.from_numpy(tokens.offsets[batch.order.numpy()])
    lengths = torch.tensor(batch.layout.lengths)
    return torch.repeat_interleave(starts, lengths) + batch.position_ids.cpu()


def differences(found: Tensor, expected: Tensor) -> Tensor:
    """[N] the difference of every row of [N, C] values; infinite where it is not a number."""
    centred = _size(expected - expected.mean(dim=0))
    spread = torch.maximum(centred, LEAST_SPREAD * _size(expected))
    apart = (found - expected).square().mean(dim=1).sqrt() / spread
    return torch.where(apart.isfinite(), apart, torch.inf)


def _size(values: Tensor) -> Tensor:
    return values.square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)


def compare(
    name: str,
    found: Mapping[int, Tensor],
    expected: Mapping[int, Tensor],
    sample: Sample,
    precision: str = "fp32",
) -> Finding:
    """Compare the hidden states of two encoders on the same sample.

    Args:
        name: of the check.
        found: layer -> [T, H].
        expected: at least the same layers, of the reference.
        sample: the sequences.
        precision: decides the limit, see ``LIMITS``.

    Returns:
        The first token above the limit in the lowest such layer, or the largest difference of all.
    """
    worst = Finding(name, True, -1.0)
    for layer in sorted(found):
        limit = LIMITS[precision] if layer else min(LIMITS[precision], EMBEDDINGS)
        apart = differences(found[layer], expected[layer])
        if precision == "fp32":
            judged = above = apart
        else:
            judged = _medians(apart, sample)
            above = apart.where(judged > limit, 0)  # the first bad token of a bad text
        figure = float(judged.max())
        failed = torch.nonzero(above > limit)
        if len(failed):
            return Finding(name, False, figure, limit, sample.place(int(failed[0]), layer))
        if worst.figure is not None and figure > worst.figure:
            place = sample.place(int(judged.argmax()), layer)
            worst = Finding(name, True, figure, limit, place)
    return worst


def _medians(values: Tensor, sample: Sample) -> Tensor:
    """[T] for every token, the median of its text."""
    parts = values.split(sample.tokens.lengths.tolist())
    return torch.cat([part.median().expand(len(part)) for part in parts])


def cosines(found: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Mean and worst cosine of unit rows [N, H], plain and with the reference's mean subtracted."""
    mean = reference.mean(axis=0)
    plain = (found * reference).sum(axis=1)
    a, b = found - mean, reference - mean
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    apart = (a * b).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return {
        "cosine": float(plain.mean()),
        "worst": float(plain.min()),
        "centred": float(apart.mean()),
        "centred_worst": float(apart.min()),
    }
