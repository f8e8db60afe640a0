"""Adapters that give the engine the interfaces of sentence-transformers and MTEB.

Neither library is needed to import this module. Both adapters read the configuration files of
sentence-transformers, and raise an error for anything that the engine cannot do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from xtremely.engine.foreign import foreign
from xtremely.engine.hub.conventions import declared, reading
from xtremely.engine.hub.stack import MODULES, modules
from xtremely.engine.processes import Processes, Request, compute
from xtremely.engine.runtime import Engine
from xtremely.engine.text.texts import checked
from xtremely.engine.text.vocabulary import load_tokenizer, lower_case
from xtremely.kernels.guard import require, unknown
from xtremely.kernels.pooling import normalise

if TYPE_CHECKING:
    from mteb import TaskMetadata
    from mteb.models import ModelMeta
    from mteb.types import BatchedInput, PromptType

Embeddings: TypeAlias = Tensor | np.ndarray | list[Tensor] | list[np.ndarray]
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
OUTPUTS = ("sentence_embedding", "token_embeddings")


class SentenceEncoder:
    """An engine with the interface and results of ``sentence_transformers.SentenceTransformer``.

    Attributes:
        device: where the engine computes.
        prompts: the folder's named prompts; ``query`` and ``document`` are empty where it has
            none. Prompts that are only published in a model card are not used here.
        default_prompt_name: the prompt used where the caller names none, or None.
        max_seq_length: tokens after which a text is cut, at most the encoder's limit.
        similarity_fn_name: one of ``SIMILARITIES``.
        truncate_dim: dimensions kept of every embedding, or None for all.

    Raises:
        InputError: the folder declares something that the engine lacks, such as a similarity.
    """

    def __init__(self, engine: Engine):
        self.device, folder = engine.backend.device, engine.folder
        kinds = [module["kind"] for module in modules(folder)]
        require(
            kinds != ["Transformer"] or not declared(folder).embeds,
            f"{folder / MODULES}: holds a Transformer alone, which makes no sentence embeddings;"
            " legal: a Pooling after it",
        )
        own = engine.conventions  # dimensions are cut here, as a call may ask for others
        whole = replace(own, modules=replace(own.modules, truncate_dim=None))
        self.engine = replace(engine, conventions=whole)
        # Evaluators call this to record their scores; there is no model card to hold them.
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)
        settings = declared(folder)
        self.prompts = {"query": "", "document": "", **(settings.prompts or {})}
        self.default_prompt_name = settings.default_prompt_name
        self._prompt(None, None)  # report an unknown default prompt now, not at first use
        self.truncate_dim = settings.truncate_dim
        self.similarity_fn_name = settings.similarity_fn_name or "cosine"
        if self.similarity_fn_name not in SIMILARITIES:
            raise unknown("similarity", self.similarity_fn_name, SIMILARITIES)
        self.max_seq_length = engine.max_length

    def get_embedding_dimension(self) -> int:
        """Dimensions of a vector from ``encode``."""
        width = self.engine.stack.width
        return min(width, self.truncate_dim or width)

    get_sentence_embedding_dimension = get_embedding_dimension  # its name before version 6

    @cached_property
    def tokenizer(self) -> Any:
        """transformers' tokenizer of the model, with ``max_seq_length`` as its limit."""
        tokenizer = load_tokenizer(self.engine.folder)
        if reading(self.engine.folder).do_lower_case:
            lower_case(self.engine.folder, getattr(tokenizer, "backend_tokenizer", None))
        tokenizer.model_max_length = self.max_seq_length
        return tokenizer

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | Sequence[str | torch.device] | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: Processes | None = None,
        chunk_size: int | None = None,
        **unsupported: Any,
    ) -> Embeddings:
        """Sentence embeddings by sentence-transformers' rules.

        ``prompt`` takes precedence over ``prompt_name``, and that over ``default_prompt_name``.
        ``truncate_dim`` is applied after the model's modules and before ``normalize_embeddings``.

        Args:
            inputs: N strings, or one; called ``sentences`` before version 6.
            batch_size: ignored: the engine's batches are counted in tokens, not sentences.
            show_progress_bar: whether to show a progress bar; None for no bar.
            output_value: ``sentence_embedding``; or ``token_embeddings`` for the last layer's
                hidden states of every token, special tokens and prompt included.
            precision: one of ``PRECISIONS``; others than float32 need sentence-transformers, whose
                ranges of int8 and uint8 are those of these embeddings.
            convert_to_numpy: return an array, otherwise a list of tensors on the engine's device.
            convert_to_tensor: return one tensor on the engine's device, whatever
                ``convert_to_numpy``.
            device: the engine's own, or a list with a device for each of several processes.
            pool: processes of ``start_multi_process_pool``.
            chunk_size: texts that a process gets at a time.
            unsupported: sentence-transformers' other options; only None is legal.

        Returns:
            [N, D] float32, or of the precision's type; [0, D] for no sentences; [D] for a single
            string. For token embeddings, a list of N tensors [tokens, H], or one.

        Raises:
            InputError: an input is not a string, a prompt name is unknown, or an option is not
                supported.
        """
        inputs = unsupported.pop("sentences", inputs)
        several = isinstance(device, Sequence) and not isinstance(device, str) and len(device) > 0
        options: dict[str, tuple[Any, list[Any]]] = {
            "output_value": (output_value, list(OUTPUTS)),
            "precision": (precision, [None, *PRECISIONS]),
            "device": (None if several or not device else str(device), [None, str(self.device)]),
            **{name: (value, [None]) for name, value in unsupported.items()},
        }
        for name, (got, legal) in options.items():
            require(got in legal, f"{name}={got!r} is not supported; legal: {legal}")
        require(
            pool is None or isinstance(pool, Processes),
            f"pool={pool!r} is not supported; legal: a pool of start_multi_process_pool",
        )
        require(inputs is not None, "inputs is missing")
        texts = checked([inputs] if isinstance(inputs, str) else inputs, "inputs")
        dimensions = self.truncate_dim if truncate_dim is None else truncate_dim
        require(
            dimensions is None or (isinstance(dimensions, int) and dimensions >= 1),
            f"truncate_dim={dimensions!r} is not supported; legal: a number of 1 or more",
        )
        by_token = output_value == "token_embeddings"
        request = Request(self._prompt(prompt, prompt_name), self.max_seq_length, by_token)
        found: list[np.ndarray] = []
        with (
            tqdm(total=len(texts), desc="Sentences", disable=not show_progress_bar) as bar,
            self._several(device if several else None, pool) as processes,
        ):
            if processes is None:
                found = compute(self.engine, texts, request, lambda done, _: bar.update(done))
            else:
                for part in processes.compute(texts, request, chunk_size):
                    found += part
                    bar.update(len(part))
        if by_token:
            states: Any = [torch.from_numpy(one).to(self.device) for one in found]
            states = _quantized(states, precision)
            return states[0] if isinstance(inputs, str) else states
        width = self.engine.stack.width
        vectors = torch.from_numpy(np.stack(found) if found else np.empty((0, width), np.float32))
        vectors = vectors[:, :dimensions]
        vectors = normalise(vectors) if normalize_embeddings else vectors
        quantized = _quantized(vectors, precision)
        as_array = convert_to_numpy and not convert_to_tensor
        if isinstance(quantized, np.ndarray):
            out = quantized if as_array else torch.from_numpy(quantized)
        else:
            out = vectors.numpy() if as_array else vectors.to(self.device)
        if isinstance(inputs, str):
            return out[0]
        return out if as_array or convert_to_tensor else list(out)

    def start_multi_process_pool(
        self, target_devices: Sequence[str | torch.device] | None = None
    ) -> Processes:
        """Processes for ``encode``, one per device; by default every GPU, or four on the CPU."""
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        return Processes(self.engine, target_devices or gpus or ["cpu"] * 4)

    @staticmethod
    def stop_multi_process_pool(pool: Processes) -> None:
        """End the processes of a pool."""
        pool.close()

    @contextmanager
    def _several(self, devices: Any, pool: Processes | None) -> Iterator[Processes | None]:
        """The caller's processes, or those of a list of devices for one call."""
        if pool is not None or devices is None:
            yield pool
            return
        made = Processes(self.engine, devices)
        try:
            yield made
        finally:
            made.close()

    def encode_query(
        self, inputs: str | Iterable[str], prompt_name: str | None = None, **options: Any
    ) -> Embeddings:
        """``encode``, by default with the prompt ``query``."""
        return self.encode(inputs, prompt_name or "query", **options)

    def encode_document(
        self, inputs: str | Iterable[str], prompt_name: str | None = None, **options: Any
    ) -> Embeddings:
        """``encode``, by default with the prompt ``document``, never ``passage``."""
        return self.encode(inputs, prompt_name or "document", **options)

    def similarity(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """[N, M] similarities of all pairs of [N, H] and [M, H]; needs sentence-transformers."""
        from sentence_transformers import SimilarityFunction

        score = SimilarityFunction.to_similarity_fn(self.similarity_fn_name)
        return score(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """[N] similarities of [N, H] and [N, H], row by row; needs sentence-transformers."""
        from sentence_transformers import SimilarityFunction

        score = SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)
        return score(embeddings1, embeddings2)

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        name = name or self.default_prompt_name
        if prompt is not None or name is None:
            return prompt or ""
        if name not in self.prompts:
            raise unknown("prompt", name, self.prompts)
        return self.prompts[name] or ""


class MtebEncoder:
    """An engine with MTEB's encoder protocol, for ``mteb.evaluate``.

    Embeddings are those of ``SentenceEncoder``. The prompt is the one that MTEB chooses among the
    model's prompts (for the task, its type, or ``query`` and ``document``), else the default. Here
    prompts that are only published in a model card are used, too.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.encoder = SentenceEncoder(engine)
        self.similarity = self.encoder.similarity
        self.similarity_pairwise = self.encoder.similarity_pairwise

    @cached_property
    def mteb_model_meta(self) -> ModelMeta:
        """The model's metadata in MTEB's results: name, hash of the folder, backend, precision."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        name, backend = self.engine.name, self.engine.backend
        return ModelMeta.create_empty(
            {
                "name": name if "/" in name else f"xtremely/{name}",
                "revision": self.engine.model_hash,
                "max_tokens": self.encoder.max_seq_length,
                "embed_dim": self.encoder.get_embedding_dimension(),
                "similarity_fn_name": ScoringFunction(self.encoder.similarity_fn_name),
                "framework": ["PyTorch"],
                "experiment_kwargs": {"backend": backend.name, "precision": backend.precision},
            }
        )

    def encode(
        self,
        inputs: Iterable[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **options: Any,
    ) -> Embeddings:
        """Embeddings [N, H] float32 of a loader's N texts; ``options`` go to SentenceEncoder."""
        from mteb.models.abs_encoder import get_prompt_name

        prompts = self.engine.conventions.prompts
        name = get_prompt_name(prompts, task_metadata, prompt_type)
        prompt = prompts[name] if name else self.engine.conventions.default_prompt
        texts = [text for batch in inputs for text in batch["text"]]
        return self.encoder.encode(texts, prompt=prompt, **options)


def _quantized(embeddings: Any, precision: str | None) -> Any:
    """Embeddings, or a list of token embeddings, in a precision of sentence-transformers."""
    if precision in (None, "float32") or not len(embeddings):
        return embeddings
    from sentence_transformers.util import quantize_embeddings

    with foreign(f"embeddings cannot be made {precision}"):
        return quantize_embeddings(embeddings, precision=precision)
