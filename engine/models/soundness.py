"""Checks model outputs for NaN and infinity without making the host wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.text.batch import Batch, collate
from xtremely.engine.text.texts import shown
from xtremely.engine.text.tokenizer import Tokens
from xtremely.engine.transfer import to_host
from xtremely.kernels.guard import InputError


class Soundness:
    """A check of a batch's values, started on the device and evaluated later.

    Args:
        precision: precision of the model, for messages.
        values: name -> values, [T, C] with one row per token or [B, C] with one per sequence.
    """

    def __init__(self, precision: str, values: Mapping[str, Tensor]):
        self._precision, self._names = precision, [*values]
        # Of NaN and infinity, one stays in a row's maximum or minimum. On a CPU the two take much
        # less time than isfinite.
        rows = [one.flatten(1) for one in values.values()]
        finite = [row.amax(1).isfinite() & row.amin(1).isfinite() for row in rows]
        self._arrived = to_host(torch.stack(finite))

    @classmethod
    def of_states(cls, precision: str, states: Mapping[int, Tensor]) -> Soundness:
        """A check of hidden states."""
        rising = sorted(states.items())
        return cls(precision, {f"hidden state {layer}": state for layer, state in rising})

    def require(
        self,
        batch: Batch,
        tokens: Tokens,
        spelled: Callable[[Sequence[int]], str],
        hidden: Callable[[Batch], Mapping[int, Tensor]] | None = None,
    ) -> None:
        """Wait for the check, and raise InputError unless all values are finite.

        Args:
            batch: the batch that was checked.
            tokens: the sequences that it was taken from.
            spelled: token ids -> text, for messages.
            hidden: computes the hidden states that were checked. A kernel that takes short
                sequences together spreads NaN from one to the others, so the sequence that is named
                is one that has NaN or infinity alone, too.
        """
        finite = self._arrived().numpy()
        if finite.all():
            return
        names, rows = np.nonzero(~finite)
        ends = np.cumsum(batch.layout.lengths)
        of_tokens = finite.shape[1] == batch.tokens
        places = np.searchsorted(ends, rows, side="right") if of_tokens else rows
        if hidden is not None:
            for place in np.unique(places):
                alone = collate(tokens, batch.order[place : place + 1].numpy())
                states = hidden(alone.to(batch.input_ids.device))
                Soundness.of_states(self._precision, states).require(alone, tokens, spelled)
        name, sequence = names[0], int(batch.order[places[0]])
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
