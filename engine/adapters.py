"""Adapters that give the engine the interfaces of sentence-transformers and MTEB.

Neither library is needed to import this module. Both adapters read the configuration files of
sentence-transformers, and raise an error for anything that the engine cannot do.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from xtremely.engine.hub.conventions import MODULES, declared, modules
from xtremely.engine.runtime import Engine
from xtremely.engine.text.texts import checked
from xtremely.kernels.guard import require, unknown
from xtremely.kernels.pooling import normalise

if TYPE_CHECKING:
    from mteb import TaskMetadata
    from mteb.models import ModelMeta
    from mteb.types import BatchedInput, PromptType

Embeddings: TypeAlias = Tensor | np.ndarray | list[Tensor] | list[np.ndarray]
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


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
        InputError: the folder declares something that the engine lacks, such as a Dense module.
    """

    def __init__(self, engine: Engine):
        self.engine, self.device, folder = engine, engine.backend.device, engine.folder
        self._normalizes = _normalizes(folder)
        # Evaluators call this to record their scores; there is no model card to hold them.
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)
        said = declared(folder)
        self.prompts = {"query": "", "document": "", **(said.prompts or {})}
        self.default_prompt_name = said.default_prompt_name
        self._prompt(None, None)  # report an unknown default prompt now, not at first use
        self.truncate_dim = said.truncate_dim
        self.similarity_fn_name = said.similarity_fn_name or "cosine"
        if self.similarity_fn_name not in SIMILARITIES:
            raise unknown("similarity", self.similarity_fn_name, SIMILARITIES)
        self.max_seq_length = engine.max_length

    def get_embedding_dimension(self) -> int:
        """Dimensions of a vector from ``encode``."""
        return min(self.engine.backend.width, self.truncate_dim or self.engine.backend.width)

    get_sentence_embedding_dimension = get_embedding_dimension  # its name before version 6

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
        device: str | torch.device | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        **unsupported: Any,
    ) -> Embeddings:
        """Sentence embeddings by sentence-transformers' rules.

        ``prompt`` takes precedence over ``prompt_name``, and that over ``default_prompt_name``.
        ``truncate_dim`` is applied after the model's Normalize module, if it has one, and before
        ``normalize_embeddings``.

        Args:
            inputs: N strings, or one; called ``sentences`` before version 6.
            batch_size: ignored: the engine's batches are counted in tokens, not sentences.
            show_progress_bar: whether to show a progress bar; None for no bar.
            output_value, precision, device: only the defaults, or the engine's own device.
            convert_to_numpy: return an array, otherwise a list of tensors on the engine's device.
            convert_to_tensor: return one tensor on the engine's device, whatever
                ``convert_to_numpy``.
            unsupported: sentence-transformers' other options; only None is legal.

        Returns:
            [N, H] float32, [0, H] for no sentences; [H] for a single string.

        Raises:
            InputError: an input is not a string, a prompt name is unknown, or an option is not
                supported.
        """
        inputs = unsupported.pop("sentences", inputs)
        options: dict[str, tuple[Any, list[Any]]] = {
            "output_value": (output_value, ["sentence_embedding"]),
            "precision": (precision, [None, "float32"]),
            "device": (device and str(device), [None, str(self.device)]),
            **{name: (value, [None]) for name, value in unsupported.items()},
        }
        for name, (got, legal) in options.items():
            require(got in legal, f"{name}={got!r} is not supported; legal: {legal}")
        single = isinstance(inputs, str)
        require(inputs is not None, "inputs is missing")
        texts = checked([inputs] if isinstance(inputs, str) else inputs, "inputs")
        dimensions = self.truncate_dim if truncate_dim is None else truncate_dim
        require(
            dimensions is None or (isinstance(dimensions, int) and dimensions >= 1),
            f"truncate_dim={dimensions!r} is not supported; legal: a number of 1 or more",
        )
        with tqdm(total=len(texts), desc="Sentences", disable=not show_progress_bar) as bar:
            states, _ = self.engine.sweep(
                texts,
                layers=[self.engine.backend.layers],
                poolings=[self.engine.conventions.pooling],
                prompt=self._prompt(prompt, prompt_name),
                max_length=self.max_seq_length,
                progress=lambda sentences, _: bar.update(sentences),
            )
        vectors = torch.from_numpy(states[:, 0, 0])
        vectors = normalise(vectors) if self._normalizes else vectors
        vectors = vectors[:, :dimensions]
        vectors = normalise(vectors) if normalize_embeddings else vectors
        as_array = convert_to_numpy and not convert_to_tensor
        out = vectors.numpy() if as_array else vectors.to(self.device)
        if single:
            return out[0]
        return out if as_array or convert_to_tensor else list(out)

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


def _normalizes(folder: Path) -> bool:
    """Whether the folder's modules end in Normalize; InputError for modules the engine lacks."""
    listed = modules(folder)
    if not listed:
        return False
    kinds, legal = [module["kind"] for module in listed], ["Transformer", "Pooling", "Normalize"]
    where = folder / MODULES
    require(kinds in (legal, legal[:2]), f"{where}: modules {kinds}; supported: {legal}")
    return kinds == legal
