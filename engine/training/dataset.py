"""Training examples, their order in batches, and the collation of padded batches.

The whole order is determined from the seed before training begins. So a resumed run continues with
the very batch that would have come next, and batches hold sequences of similar length.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset

IGNORED = -100  # target of tokens that are ignored by the loss
POOLED = 50  # batches whose examples are sorted by length together
MASKED = 0.15  # share of tokens that a masked language model predicts


class Feature(NamedTuple):
    """One tokenised example.

    Attributes:
        ids: token ids of its sequence, or for multiple choice of each option's sequence.
        types: token types, likewise.
        target: number of the label or option; labels of all tokens [T]; positions of an answer's
            first and last token; or None for masked language modelling.
    """

    ids: tuple[np.ndarray, ...]
    types: tuple[np.ndarray, ...]
    target: Any

    @property
    def length(self) -> int:
        """Tokens of the example's longest sequence."""
        return max(map(len, self.ids))


@dataclass(frozen=True)
class TrainSet:
    """Training examples of one head.

    Attributes:
        head: name of the head.
        features: the examples.
        share: share of all examples drawn; the shares of all training sets sum to 1.
    """

    head: str
    features: Sequence[Feature]
    share: float = 1.0


@dataclass(frozen=True)
class DevSet:
    """Dev examples of one head.

    Attributes:
        head: name of the head.
        features: the examples; their targets are not used.
        score: predictions -> score, higher is better. There is one prediction per feature: a class
            number, one class number per token, or the positions of an answer's first and last
            token.
    """

    head: str
    features: Sequence[Feature]
    score: Callable[[list[np.ndarray]], float]


class Key(NamedTuple):
    """An example in the order: training set, row, and how often it occurred before."""

    train_set: int
    row: int
    pass_number: int


def order(
    train_sets: Sequence[TrainSet], batch_size: int, epochs: float, batches: int | None, seed: int
) -> list[list[Key]]:
    """The batches of a whole training, each from one training set.

    A training set gets its share of the examples drawn, in as many passes over it as that takes: no
    example is repeated before all have been used. Its batches are spread evenly over the run.

    Args:
        train_sets: the training sets.
        batch_size: most examples in a batch; the last batch of a pass may have fewer.
        epochs: examples drawn, in multiples of the number of examples of all training sets.
        batches: exact number of batches, instead of epochs.
        seed: random seed of the order.
    """
    rng = random.Random(seed)
    total = epochs * sum(len(train_set.features) for train_set in train_sets)
    if batches is not None:
        total = batches * batch_size
    placed: list[tuple[float, int, list[Key]]] = []
    for number, train_set in enumerate(train_sets):
        remaining = max(1, math.ceil(train_set.share * total - 1e-6))  # less rounding errors
        own = list(_passes(train_set, number, remaining, batch_size, rng))
        placed += [((n + rng.random()) / len(own), number, b) for n, b in enumerate(own)]
    placed.sort(key=lambda one: one[:2])
    return [batch for _, _, batch in placed][:batches]


def _passes(
    train_set: TrainSet, number: int, remaining: int, batch_size: int, rng: random.Random
) -> Iterator[list[Key]]:
    """The batches of one training set, pass by pass."""
    lengths = [feature.length for feature in train_set.features]
    pass_number = 0
    while remaining > 0:
        rows = rng.sample(range(len(lengths)), min(remaining, len(lengths)))
        made = []
        for start in range(0, len(rows), POOLED * batch_size):
            pool = sorted(rows[start : start + POOLED * batch_size], key=lengths.__getitem__)
            made += [pool[n : n + batch_size] for n in range(0, len(pool), batch_size)]
        rng.shuffle(made)
        yield from ([Key(number, row, pass_number) for row in batch] for batch in made)
        remaining -= len(rows)
        pass_number += 1


class Examples(Dataset):
    """A dataset that returns the features of keys, for a data loader."""

    def __init__(self, train_sets: Sequence[TrainSet]):
        self._train_sets = train_sets

    def __len__(self) -> int:
        return sum(len(train_set.features) for train_set in self._train_sets)

    def __getitem__(self, key: Key) -> tuple[Key, str, Feature]:
        train_set = self._train_sets[key.train_set]
        return key, train_set.head, train_set.features[key.row]


class Order(BatchSampler):
    """A batch sampler with a fixed order."""

    def __init__(self, batches: list[list[Key]], batch_size: int):
        self._batches = batches
        self.batch_size = batch_size
        self.drop_last = False

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


@dataclass(frozen=True)
class Vocabulary:
    """The part of a vocabulary that a training run keeps in its word table.

    Attributes:
        kept: [P], ids of the kept pieces in ascending order; the padding id keeps its row.
        place: [V], id -> row among the kept ones; 0 for others.
        pad: id of the padding token.
        mask: id of the mask token; None for a tokenizer without one.
        special: ids that are never masked.
    """

    kept: np.ndarray
    place: np.ndarray
    pad: int
    mask: int | None
    special: frozenset[int]

    @classmethod
    def of(cls, used: Sequence[Feature] | None, size: int, tokenizer: Any) -> Vocabulary:
        """The pieces that occur in features, and special tokens; all pieces if ``used`` is None.

        Ids up to the padding id are always kept, as RoBERTa-style models count positions from it.

        Args:
            used: all features that the model will see, or None.
            size: rows of the model's word table.
            tokenizer: transformers' tokenizer, for the special tokens.
        """
        special = frozenset(tokenizer.all_special_ids)
        pad, mask = tokenizer.pad_token_id, tokenizer.mask_token_id
        in_use = np.full(size, used is None)
        in_use[: pad + 1] = True
        in_use[[one for one in special if one < size]] = True
        for feature in used or ():
            for ids in feature.ids:
                in_use[ids] = True
        kept = np.flatnonzero(in_use)
        place = np.zeros(size, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        return cls(kept, place, pad, mask, special)


class Collator:
    """Collates examples of one head into a padded batch.

    Args:
        kinds: head -> its kind, see ``multitask_model.CLASSES``.
        vocabulary: the pieces in the model's word table.
        typed: whether the model takes token types.
        multiple: sequences are padded to a multiple of this number of tokens.
        seed: random seed of the masks.
    """

    def __init__(
        self, kinds: dict[str, str], vocabulary: Vocabulary, typed: bool, multiple: int, seed: int
    ):
        self._kinds, self._vocabulary, self._typed = kinds, vocabulary, typed
        self._multiple, self._seed = multiple, seed

    def __call__(self, batch: Sequence[tuple[Key, str, Feature]]) -> dict[str, Any]:
        """The head's name, and its model's inputs: ids, mask, types and targets."""
        keys, (head, *_), features = zip(*batch, strict=True)
        kind = self._kinds[head]
        longest = max(feature.length for feature in features)
        length = -(-longest // self._multiple) * self._multiple
        if kind == "masked language":
            features = [self._masked(*one) for one in zip(keys, features, strict=True)]
        else:
            place = self._vocabulary.place
            features = [f._replace(ids=tuple(place[ids] for ids in f.ids)) for f in features]
        rows = [ids for feature in features for ids in feature.ids]
        shape = (len(features), -1, length) if kind == "multiple choice" else (-1, length)
        inputs = {
            "input_ids": _padded(rows, length, self._vocabulary.pad).view(shape),
            "attention_mask": _padded([np.ones(len(r)) for r in rows], length, 0).view(shape),
        }
        if self._typed:
            types = [types for feature in features for types in feature.types]
            inputs["token_type_ids"] = _padded(types, length, 0).view(shape)
        targets = [feature.target for feature in features]
        if kind == "question answering":
            both = torch.tensor(targets, dtype=torch.int64)
            inputs["start_positions"], inputs["end_positions"] = both.unbind(1)
        elif kind in ("token classification", "masked language"):
            inputs["labels"] = _padded(targets, length, IGNORED)
        else:
            inputs["labels"] = torch.tensor(targets, dtype=torch.int64)
        return {"head": head, "inputs": inputs}

    def _masked(self, key: Key, feature: Feature) -> Feature:
        """Mask a sequence for masked language modelling, with BERT's 80, 10 and 10 percent.

        The mask only depends on seed and key, so it is the same in a resumed run.
        """
        rng = np.random.default_rng((self._seed, *key))
        ids = feature.ids[0]
        words = np.flatnonzero([one not in self._vocabulary.special for one in ids.tolist()])
        asked = rng.permutation(words)[: max(1, round(MASKED * len(words)))]
        seen, target = self._vocabulary.place[ids], np.full(len(ids), IGNORED)
        target[asked] = seen[asked]
        draws = rng.random(len(asked))
        seen[asked[draws < 0.8]] = self._vocabulary.place[self._vocabulary.mask]
        others = asked[draws >= 0.9]
        seen[others] = rng.integers(len(self._vocabulary.kept), size=len(others))
        return Feature((seen,), feature.types, target)


def _padded(rows: Sequence[np.ndarray], length: int, filler: int) -> Tensor:
    """Rows padded with ``filler`` to [N, length] int64."""
    made = np.full((len(rows), length), filler, dtype=np.int64)
    for place, row in enumerate(rows):
        made[place, : len(row)] = row
    return torch.from_numpy(made)
