"""transformers' own models on padded batches, the reference of the checks.

Nothing of the engine takes part but the token ids: transformers reads the folder, counts positions,
masks the padding and computes every layer itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.foreign import foreign
from xtremely.engine.models.loading import quiet
from xtremely.engine.text.batch import plan
from xtremely.engine.text.tokenizer import Tokens

BUDGET = 128  # most tokens of a batch without its padding; longer sequences are alone


@dataclass(frozen=True)
class _Padded:
    """A padded batch: its sequences [B], their tokens' rows [T], and the inputs, each [B, L]."""

    numbers: Tensor
    rows: Tensor
    inputs: dict[str, Tensor]

    @property
    def there(self) -> Tensor:
        """[B, L] whether a token is none of the padding."""
        return self.inputs["attention_mask"].bool()


class Reference:
    """A model of transformers in fp32.

    Args:
        folder: a Hugging Face model folder.
        device: where to compute.
        auto: the class of transformers that loads it.
        typed: whether the model's tokenizer makes token types.

    Raises:
        InputError: transformers cannot load or run it.
    """

    def __init__(
        self, folder: Path, device: torch.device, auto: str = "AutoModel", typed: bool = False
    ):
        import transformers

        self.folder, self.device = folder, device
        with foreign(f"{folder}: transformers cannot load it"), quiet():
            model = getattr(transformers, auto).from_pretrained(
                str(folder), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
        self.model = model.to(device).eval()
        self.pad = getattr(model.config, "pad_token_id", None) or 0
        accepts = inspect.signature(model.forward).parameters
        self.typed = typed and "token_type_ids" in accepts

    def states(self, tokens: Tokens, layers: Collection[int]) -> dict[int, Tensor]:
        """Hidden states of N sequences, each [T, H] on the CPU, in the order of the tokens."""
        found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        order: list[Tensor] = []
        for batch in self._batches(tokens):
            states = self._run(batch.inputs, output_hidden_states=True).hidden_states
            order.append(batch.rows)
            for layer, parts in found.items():
                parts.append(states[layer][batch.there].cpu())
        back = torch.cat(order).argsort()
        return {layer: torch.cat(parts)[back] for layer, parts in found.items()}

    def outputs(self, tokens: Tokens, kind: str) -> Tensor:
        """Outputs of the head: [T, C] of every token, or [N, C] of every sequence."""
        found, order = [], []
        for batch in self._batches(tokens):
            inputs = batch.inputs
            if kind == "multiple choice":  # every sequence is the only choice
                inputs = {name: value[:, None] for name, value in inputs.items()}
            outputs = self._run(inputs)
            if kind == "question answering":
                values = torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
            else:
                values = outputs.logits
            token_wise = values.ndim == 3
            found.append((values[batch.there] if token_wise else values).cpu())
            order.append(batch.rows if token_wise else batch.numbers)
        return torch.cat(found)[torch.cat(order).argsort()]

    @torch.inference_mode()
    def _run(self, inputs: dict[str, Tensor], **options: Any) -> Any:
        with foreign(f"{self.folder}: transformers cannot run it"):
            return self.model(**inputs, **options)

    def _batches(self, tokens: Tokens) -> Iterator[_Padded]:
        lengths = tokens.lengths
        for numbers in plan(lengths, BUDGET):
            shape = len(numbers), int(lengths[numbers].max())
            ids = np.full(shape, self.pad, dtype=np.int64)
            types, mask = np.zeros_like(ids), np.zeros_like(ids)
            rows = [np.arange(*tokens.offsets[number : number + 2]) for number in numbers]
            for place, row in enumerate(rows):
                ids[place, : len(row)] = tokens.ids[row]
                types[place, : len(row)] = tokens.types[row]
                mask[place, : len(row)] = 1
            inputs = {"input_ids": ids, "attention_mask": mask}
            inputs |= {"token_type_ids": types} if self.typed else {}
            yield _Padded(
                torch.from_numpy(numbers),
                torch.from_numpy(np.concatenate(rows)),
                {name: torch.from_numpy(value).to(self.device) for name, value in inputs.items()},
            )
