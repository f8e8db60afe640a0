"""Encoder contenders: this engine, transformers and sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from xtremely.bench.harness import Contender
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import plan

BATCH_SIZE = 32  # sentence-transformers' default

PlanBatches = Callable[[list[int]], list[np.ndarray]]  # token counts -> indices of each batch


def packed(engine: Engine, budget: int, name: str = "xtremely packed") -> Contender:
    """This engine on packed batches of at most ``budget`` tokens."""
    own = replace(engine, token_budget=budget)
    return Contender(
        name,
        lambda texts: own.embed(texts, pooling="mean"),
        before=engine.tokenizer.forget,  # so that every run includes its tokenisation
    )


class Transformers:
    """A model loaded with transformers' AutoModel, mean pooling.

    Args:
        engine: engine whose model folder, prompt, device and length limit are used.
        attention: transformers' name of the attention implementation.
    """

    def __init__(self, engine: Engine, attention: str):
        from transformers import AutoModel, AutoTokenizer

        folder = str(engine.folder)
        self.prompt = engine.conventions.default_prompt
        self.device = engine.backend.device
        self.max_length = engine.backend.max_length
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(
            folder, attn_implementation=attention, dtype=torch.float32
        )
        self.model.to(self.device).eval()

    @torch.inference_mode()
    def embed(self, texts: list[str], batches: PlanBatches) -> np.ndarray:
        """[N, H] normalised embeddings, computed in padded batches."""
        prompted = [self.prompt + text for text in texts]
        rows = self.tokenizer(prompted, truncation=True, max_length=self.max_length)["input_ids"]
        out = np.empty((len(texts), self.model.config.hidden_size), dtype=np.float32)
        for indices in batches([len(row) for row in rows]):
            lengths = torch.tensor([len(rows[i]) for i in indices])
            ids = pad_sequence(
                [torch.tensor(rows[i]) for i in indices],
                batch_first=True,
                padding_value=self.tokenizer.pad_token_id,
            ).to(self.device)
            mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(self.device)
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            out[indices] = normalize(mean, dim=-1).cpu().numpy()
        return out

    def sorted(self, budget: int) -> Contender:
        """Longest texts first, in the packed engine's batches, padded."""
        return Contender(
            "transformers sdpa sorted",
            lambda texts: self.embed(texts, lambda lengths: plan(lengths, budget)),
        )

    def naive(self) -> Contender:
        """Texts in the given order, in batches of 32."""

        def batches(lengths: list[int]) -> list[np.ndarray]:
            everything = np.arange(len(lengths))
            return [everything[i : i + BATCH_SIZE] for i in range(0, len(lengths), BATCH_SIZE)]

        return Contender(
            "transformers eager unsorted",
            lambda texts: self.embed(texts, batches),
        )


def sentence_transformers(engine: Engine) -> Contender:
    """``SentenceTransformer.encode`` with its default settings."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(engine.folder), device=str(engine.backend.device))
    prompt = engine.conventions.default_prompt
    return Contender(
        "sentence-transformers default",
        lambda texts: model.encode(
            texts, prompt=prompt, normalize_embeddings=True, show_progress_bar=False
        ),
    )
