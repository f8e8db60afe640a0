"""Hidden states of a backend against transformers' own, on sequences of token ids."""

import numpy as np
import torch

from xtremely.engine.text.batch import collate
from xtremely.engine.text.tokenizer import Tokens

LENGTHS = (128, 61, 61, 17, 3, 1)


def tokens_of(backend, lengths=LENGTHS, typed=False):
    """Random token ids, with token types 0 and 1 if ``typed``."""
    lengths = np.minimum(lengths, backend.max_length)
    ids = np.random.default_rng(0).integers(5, backend.vocabulary, lengths.sum()).astype(np.int32)
    types = (ids % 2 if typed else ids * 0).astype(np.uint8)
    return Tokens(ids, types, np.concatenate([[0], lengths.cumsum()]), 0)


def batch_of(backend, **asked):
    """The sequences of ``tokens_of`` as one batch."""
    tokens = tokens_of(backend, **asked)
    return collate(tokens, np.arange(len(tokens)))


def largest_difference(folder, backend):
    """Largest difference of any hidden state, relative to its layer's standard deviation.

    transformers gets one sequence at a time: no padding to get wrong. Token types are given where
    its model takes more than one.
    """
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    typed = getattr(model.config, "type_vocab_size", 0) > 1
    tokens, layers = tokens_of(backend, typed=typed), range(backend.layers + 1)
    found = backend.hidden(collate(tokens, np.arange(len(tokens))), layers)
    worst = 0.0
    for start, end in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True):
        inputs = {"input_ids": torch.from_numpy(tokens.ids[None, start:end].astype(np.int64))}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if typed:
            types = tokens.types[None, start:end].astype(np.int64)
            inputs["token_type_ids"] = torch.from_numpy(types)
        with torch.inference_mode():
            states = model(**inputs, output_hidden_states=True).hidden_states
        assert len(states) == len(layers)
        for layer in layers:
            difference = (found[layer][start:end] - states[layer][0]).abs().max()
            worst = max(worst, float(difference / states[layer].std()))
    return worst
