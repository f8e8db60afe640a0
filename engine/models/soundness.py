"""Whether what a model gives is finite: looked at on the device, told when results are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.text.batch import Batch
from xtremely.engine.text.texts import shown
from xtremely.engine.text.tokenizer import Tokens
from xtremely.engine.transfer import to_host
from xtremely.kernels.guard import InputError


class Soundness:
    """A look at values of a batch that does not wait for the device.

    Args:
        precision: what the model runs in.
        values: what they are -> [T, C], a row a token, or [B, C], a row a sequence.
    """

    def __init__(self, precision: str, values: Mapping[str, Tensor]):
        self._precision, self._names = precision, [*values]
        finite = [one.isfinite().flatten(1).all(1) for one in values.values()]
        self._arrived = to_host(torch.stack(finite))

    @classmethod
    def of_states(cls, precision: str, states: Mapping[int, Tensor]) -> Soundness:
        """A look at hidden states."""
        rising = sorted(states.items())
        return cls(precision, {f"hidden state {layer}": state for layer, state in rising})

    def require(
        self, batch: Batch, tokens: Tokens, spelled: Callable[[Sequence[int]], str]
    ) -> None:
        """Raise InputError unless everything is finite; waits until the look has arrived.

        Args:
            batch: that was looked at.
            tokens: the sequences of which it is a part.
            spelled: ids to text.
        """
        finite = self._arrived().numpy()
        if finite.all():
            return
        name, row = np.argwhere(~finite)[0]
        ends = np.cumsum(batch.layout.lengths)
        of_tokens = finite.shape[1] == batch.tokens
        place = int(np.searchsorted(ends, row, side="right")) if of_tokens else int(row)
        sequence = int(batch.order[place])
        if tokens.texts is None:
            start, end = tokens.offsets[sequence : sequence + 2]
            text = spelled(tokens.ids[start:end].tolist())
        else:
            text = tokens.texts[sequence]
        remedy = (
            f"{self._precision} holds nothing above 65,504; use --precision bf16 or fp32"
            if self._precision in ("fp16", "fp8")
            else "the model is damaged, or its numbers are too large to compute with"
        )
        raise InputError(
            f"NaN or infinity in {self._names[name]} of text {sequence + 1} of {len(tokens)},"
            f" {shown(text)}; {remedy}"
        )
