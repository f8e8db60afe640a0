"""``Engine``: loads a model once and turns text into embeddings or the outputs of a task head."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.backends.padded import PaddedTransformers
from xtremely.engine.backends.select import open_backend
from xtremely.engine.devices import usable_device
from xtremely.engine.hub.conventions import OWN, Conventions, conventions, reading
from xtremely.engine.hub.locate import display_name, folder_hash, locate
from xtremely.engine.hub.stack import load_stack
from xtremely.engine.models.encoder import Backend
from xtremely.engine.models.heads import Head, load_head
from xtremely.engine.models.soundness import Soundness
from xtremely.engine.models.stack import Stack, pool_states
from xtremely.engine.text.batch import Batch, collate, plan
from xtremely.engine.text.texts import checked
from xtremely.engine.text.tokenizer import Tokenizer, Tokens
from xtremely.engine.transfer import Finish, to_host
from xtremely.kernels.guard import UsageError, require
from xtremely.kernels.pooling import POOLINGS, normalise

# Batches that exceed a CPU's cache are slower; a GPU needs many tokens to be fully used.
TOKEN_BUDGET = {"cpu": 2048, "native": 8192, "cuda": 32768}

# Names of poolings that a caller may ask for; see ``Engine.embed``.
ENGINE_POOLINGS = (*POOLINGS, OWN)

Progress = Callable[[int, int], None]  # called with (sentences, tokens) done since the last call


@dataclass
class Work:
    """What it cost to run a list of sequences: counts, and wall-clock time in seconds."""

    sentences: int = 0
    tokens: int = 0
    computed_tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0

    def add(self, other: Work) -> None:
        """Add the counts and seconds of ``other`` to this one."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def padding_share(self) -> float:
        """Share of the computed tokens that were padding, 0 to 1."""
        return 1 - self.tokens / self.computed_tokens if self.computed_tokens else 0.0


@dataclass
class Engine:
    """A model on a backend.

    Attributes:
        name: the name under which the model was requested.
        checkpoint: name of the fine-tuned checkpoint; None for the model itself.
        folder: the folder with its files.
        backend: runs the encoder.
        tokenizer: the model's own.
        conventions: the model's modules, prompts and length limit.
        token_budget: most tokens in a batch; halved when the device runs out of memory.
    """

    name: str
    folder: Path
    backend: Backend
    tokenizer: Tokenizer
    conventions: Conventions
    token_budget: int
    checkpoint: str | None = None
    _hash: str = field(default="", repr=False)
    _fitting: int | None = field(default=None, repr=False)  # tokens, once a batch did not fit

    @classmethod
    def load(
        cls,
        model: str,
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "fp32",
        token_budget: int | None = None,
        allow_pickle: bool = False,
    ) -> Engine:
        """Load a model by name.

        Args:
            model: ``e5-small-4bit`` (packaged), a Hugging Face folder, or a hub name.
            backend: ``auto``, ``torch``, ``triton``, ``native``, ``onnx`` or ``onnx:PROVIDER``.
            device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``.
            precision: see ``open_backend``.
            token_budget: most tokens in a batch; by default as in ``TOKEN_BUDGET``.
            allow_pickle: read pickled weights if there are no other ones; see ``hub.ordinary``.

        Raises:
            UsageError: an unknown backend, device or precision.
            InputError: the model cannot be found or loaded; the message says what to do.
        """
        folder = locate(model, allow_pickle)
        place = usable_device(device)
        opened = cache(partial(Tokenizer, folder, lower=bool(reading(folder).do_lower_case)))
        loaded = open_backend(folder, backend, place, precision, opened)
        tokenizer = opened(loaded.max_length)
        if isinstance(loaded, PaddedTransformers):
            loaded.typed &= tokenizer.typed
        budget = token_budget or TOKEN_BUDGET.get(loaded.name, TOKEN_BUDGET[place.type])
        require(budget >= 1, f"token_budget {budget} must be at least 1")
        name = display_name(model)
        own, least = conventions(folder, name), tokenizer.single.specials
        most = min(own.max_length or loaded.max_length, loaded.max_length)
        require(
            most > least,
            f"{folder}: cuts texts at {most} tokens (max_seq_length, model_max_length or"
            f" max_position_embeddings); legal: {least + 1} or more, with {least} special tokens",
        )
        engine = cls(name, folder, loaded, tokenizer, own, budget)
        _ = engine.stack  # refuse invalid modules now, not at first use
        return engine

    @property
    def model_hash(self) -> str:
        """SHA-256 over the folder's weights, configuration and tokenizer."""
        if not self._hash:
            self._hash = folder_hash(self.folder)
        return self._hash

    @property
    def batch_tokens(self) -> int:
        """Most tokens in a batch: ``token_budget``, or fewer since the device ran out of memory."""
        return self.token_budget if self._fitting is None else self._fitting

    @cached_property
    def stack(self) -> Stack:
        """The model's modules after its encoder, on the backend's device."""
        return load_stack(self.conventions.modules, self.backend.width).to(self.backend.device)

    def width(self, pooling: str, layer: int | None = None) -> int:
        """Width of the vectors of a pooling at a layer, by default the last; see ``embed``."""
        if pooling != OWN:
            return self.backend.width
        last = layer is None or layer == self.backend.layers
        return self.stack.width if last else self.backend.width * len(self.stack.modes)

    @property
    def max_length(self) -> int:
        """Tokens after which texts are cut: the model's own limit, at most the encoder's."""
        own, most = self.conventions.max_length, self.backend.max_length
        return most if own is None else min(own, most)

    def embed(
        self,
        texts: Iterable[str],
        *,
        prompt: str | None = None,
        layer: int | None = None,
        pooling: str | None = None,
        normalize: bool = True,
        max_length: int | None = None,
    ) -> np.ndarray:
        """Sentence embeddings.

        Args:
            texts: N strings; see ``texts.checked``.
            prompt: text put before every sentence; by default the model's own.
            layer: 0 (output of the embedding layer) to the number of layers; by default the last.
            pooling: ``mean`` or ``cls`` of the layer's hidden states, or ``model``: the model's own
                poolings, and at the last layer all its modules after them. By default the model's.
            normalize: scale every embedding to length 1. Otherwise those of the last layer have the
                length that the model gives them.
            max_length: tokens after which a text is cut; by default the model's own limit.

        Returns:
            [N, D] float32; D is the width of the hidden states unless the model changes it.
        """
        own = self.conventions.pooling if normalize else OWN
        vectors, _ = self.sweep(
            texts,
            layers=[self.backend.layers if layer is None else layer],
            poolings=[own if pooling is None else pooling],
            prompt=prompt,
            max_length=max_length,
        )
        flat = vectors[:, 0, 0]
        return normalise(torch.from_numpy(flat)).numpy() if normalize else flat

    def sweep(
        self,
        texts: Iterable[str],
        *,
        layers: Sequence[int],
        poolings: Sequence[str],
        prompt: str | None = None,
        max_length: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, Work]:
        """Embeddings from several layers and poolings in one pass; other arguments as ``embed``.

        Returns:
            [N, layers, poolings, D] float32, as the model gives them, and what the pass cost. D is
            the largest width; narrower vectors end in zeros, which change no product of theirs.
        """
        start = time.perf_counter()
        tokens = self.tokens(texts, prompt=prompt, max_length=max_length)
        tokenised = time.perf_counter() - start
        vectors, work = self.pooled(tokens, layers=layers, poolings=poolings, progress=progress)
        work.seconds += tokenised
        return vectors, work

    def tokens(
        self, texts: Iterable[str], *, prompt: str | None = None, max_length: int | None = None
    ) -> Tokens:
        """Tokenise texts for the encoder; see ``embed`` for prompt and length.

        Raises:
            InputError: one of them is not a text (see ``texts.checked``).
            UsageError: the prompt fills the whole sequence, so that all texts would be equal.
        """
        texts = checked(texts)
        prefix = self.conventions.default_prompt if prompt is None else prompt
        limit = self.max_length if max_length is None else max_length
        if prefix and self.tokenizer([f"{prefix} 0"], limit).truncated:
            raise UsageError(
                f"the prompt {prefix[:40]!r} leaves no room for a text in sequences of {limit}"
                " tokens; take a shorter one"
            )
        length = 0 if self.stack.include_prompt else self.tokenizer.prompt_length(prefix)
        tokens = self.tokenizer([prefix + text for text in texts], limit)
        return replace(tokens, texts=texts, prompt_length=length)

    def pooled(
        self,
        tokens: Tokens,
        *,
        layers: Sequence[int],
        poolings: Sequence[str],
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, Work]:
        """``sweep`` for N sequences that are already tokenised."""
        require(len(layers) > 0 and len(poolings) > 0, "no layer or no pooling was asked for")
        for layer in layers:
            if not 0 <= layer <= self.backend.layers:
                raise UsageError(
                    f"layer {layer} does not exist; {self.name} has layers 0 to"
                    f" {self.backend.layers}"
                )
        for pooling in poolings:
            if pooling not in ENGINE_POOLINGS:
                raise UsageError(
                    f"pooling {pooling!r} is not known; legal: {', '.join(ENGINE_POOLINGS)}"
                )
        spaces = [(layer, pooling) for layer in layers for pooling in poolings]
        width = max(self.width(pooling, layer) for layer, pooling in spaces)
        shape = (len(tokens), len(layers), len(poolings), width)
        out = torch.empty(shape, dtype=torch.float32)

        def pool(states: dict[int, Tensor], batch: Batch) -> Finish:
            pooled = [
                self._vectors(states[layer], batch, layer, pooling, tokens.prompt_length)
                for layer, pooling in spaces
            ]
            filled = [torch.nn.functional.pad(one, (0, width - one.shape[1])) for one in pooled]
            copied = to_host(torch.stack(filled, dim=1))

            def finish() -> None:
                out[batch.order] = copied().view(len(batch.order), *shape[1:])

            return finish

        work = self.run(tokens, layers, pool, progress)
        return out.numpy(), work

    def _vectors(
        self, state: Tensor, batch: Batch, layer: int, pooling: str, prompt_length: int
    ) -> Tensor:
        """A batch's vectors [B, D] fp32 from a layer's states; arguments as of ``embed``."""
        if pooling != OWN:
            return self.backend.pool(state, batch, pooling)
        parts = [
            self.backend.pool(state, batch, mode)
            if mode in POOLINGS and not prompt_length
            else pool_states(state, batch.layout, mode, prompt_length)
            for mode in self.stack.modes
        ]
        joined = torch.cat(parts, dim=1)
        return self.stack(joined) if layer == self.backend.layers else joined

    def head(self, kind: str, labels: Collection[str] | None = ()) -> Head:
        """The task head in the model's folder; see ``heads.load_head``."""
        return load_head(self.folder, self.backend, kind, labels)

    def predict(
        self,
        head: Head,
        tokens: Tokens,
        take: Callable[[Tensor, Batch], Finish | None],
        progress: Progress | None = None,
    ) -> Work:
        """Run a task head on tokenised sequences.

        Args:
            head: a head of this engine.
            tokens: N sequences, from ``tokenizer``.
            take: called with each batch's outputs, [B, C] or [T, C] fp32 on the backend's device,
                and with the batch, whose ``order`` holds the sequences' indices; see ``run``.
            progress: see ``Progress``.

        Returns:
            What it cost.
        """
        last = self.backend.layers

        def asked(states: dict[int, Tensor], batch: Batch) -> Finish:
            outputs = head(states[last], batch)
            sound = Soundness(self.backend.precision, {"the head's outputs": outputs})
            return partial(self._finish, sound, batch, tokens, take(outputs, batch))

        return self.run(tokens, [last], asked, progress)

    def run(
        self,
        tokens: Tokens,
        layers: Collection[int],
        take: Callable[[dict[int, Tensor], Batch], Finish | None],
        progress: Progress | None = None,
    ) -> Work:
        """Run every sequence through the encoder; ``take`` receives each batch's hidden states.

        The function that ``take`` returns is called after the next batch has been submitted. So
        the device computes one batch while the host waits for the results of the one before (see
        ``transfer.to_host``). A batch that does not fit into the device's memory is split, and all
        later batches are smaller, too.

        Raises:
            InputError: the hidden states of a sequence hold NaN or infinity. The sequence is named,
                and its batch's results are not used.
        """
        start = time.perf_counter()
        work = Work(sentences=len(tokens), tokens=len(tokens.ids), truncated=tokens.truncated)
        queue = plan(tokens.lengths, self.batch_tokens)[::-1]
        finish: Finish | None = None
        while queue:
            indices = queue.pop()
            batch = collate(tokens, indices)
            try:
                batch = batch.to(self.backend.device)
                states = self.backend.hidden(batch, layers)
                sound = Soundness.of_states(self.backend.precision, states)
                left_to_do = take(states, batch)
            except torch.OutOfMemoryError:
                if len(indices) == 1:
                    raise
                self._shrink(batch.tokens)
                left = np.concatenate([indices, *queue[::-1]])
                queue = [left[part] for part in plan(tokens.lengths[left], self.batch_tokens)][::-1]
                continue
            if finish is not None:
                finish()
            finish = partial(self._finish, sound, batch, tokens, left_to_do, layers)
            work.computed_tokens += self.backend.computed(batch)
            if progress is not None:
                progress(len(indices), batch.tokens)
        if finish is not None:
            finish()
        work.seconds = time.perf_counter() - start
        return work

    def _finish(
        self,
        sound: Soundness,
        batch: Batch,
        tokens: Tokens,
        left_to_do: Finish | None,
        layers: Collection[int] | None = None,
    ) -> None:
        """Check a batch, of which ``layers`` were computed, and use its results on the host."""
        hidden = None if layers is None else partial(self.backend.hidden, layers=layers)
        sound.require(batch, tokens, self.tokenizer.spelled, hidden)
        if left_to_do is not None:
            left_to_do()

    def _shrink(self, tokens: int) -> None:
        """Halve the batches after one of ``tokens`` did not fit, with a warning."""
        self._fitting = max(1, min(self.batch_tokens, tokens) // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        smaller = f"batches now have {self.batch_tokens} tokens"
        warnings.warn(f"out of device memory; {smaller}", stacklevel=3)
