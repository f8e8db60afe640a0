"""Peers that need other library versions than this project, run by a Python that has them.

    python -m venv other && other/bin/pip install -r bench/external_env.txt
    CMAKE_ARGS=-DGGML_NATIVE=ON other/bin/pip install llama-cpp-python==0.3.36  # optional: compiles
    python -m xtremely.bench.encoders --external-python other/bin/python

That Python runs this file as a script, so nothing here imports the project. ``convert`` writes the
models first, in a process of its own, so that memory for the export counts for no contender.

llama.cpp is given token ids, as CTranslate2 is: the packaged model's tokenizer has normalisation
rules that its format cannot hold. It is left out where it is not installed.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ONNX, OPENVINO, OPTIMUM, FASTEMBED, LLAMA_CPP = (
    "sentence-transformers onnx",
    "sentence-transformers openvino",
    "optimum onnxruntime",
    "fastembed",
    "llama.cpp Q8_0",
)
FOLDERS = {
    ONNX: "external-onnx",
    OPENVINO: "external-openvino",
    OPTIMUM: "external-onnx",
    FASTEMBED: "external-onnx",
    LLAMA_CPP: "external-gguf",
}
GGUF = "model.gguf"

Run = Callable[[list[list[int]]], Any]  # token ids of B texts -> [B, H], of any length


def serve(far: Connection, make: Callable[[int], Any]) -> None:
    """Answer requests of ``contenders.SubprocessContender`` until the connection is closed.

    Args:
        far: this process's end of the connection.
        make: token budget of a batch -> object with ``embed`` and ``before``.
    """
    make = cache(make)
    far.send("ready")
    while True:
        try:
            what, budget, *texts = far.recv()
        except EOFError:
            return
        if what == "processor":
            far.send(time.process_time())
        else:
            far.send(getattr(make(budget), what)(*texts))


def convert(folder: str, scratch: str) -> None:
    """Write the model in the format of every peer.

    Raises:
        ImportError: a package of ``external_env.txt`` is missing.
    """
    import_module("fastembed")  # it reads what the next lines write
    from sentence_transformers import SentenceTransformer

    for name, backend in ((ONNX, "onnx"), (OPENVINO, "openvino")):
        model = SentenceTransformer(folder, backend=backend, device="cpu")
        model.save_pretrained(str(Path(scratch) / FOLDERS[name]))
    reason = unavailable_reason(folder)
    if reason:
        print(f"{LLAMA_CPP} is left out: {reason}", file=sys.stderr)
    else:
        write_gguf(folder, Path(scratch) / FOLDERS[LLAMA_CPP])


def unavailable_reason(folder: str) -> str | None:
    """Why llama.cpp cannot run the model of a folder; None if it can."""
    from transformers import AutoConfig

    missing = [name for name in ("llama_cpp", "gguf") if find_spec(name) is None]
    if missing:
        return f"{sys.executable} has no {' and no '.join(missing)}"
    config = AutoConfig.from_pretrained(folder)
    form = (
        config.model_type,
        getattr(config, "position_embedding_type", "absolute"),
        getattr(config, "hidden_act", None),
    )
    if form != ("bert", "absolute", "gelu"):
        return "only a BERT with absolute positions and GELU is written for it"
    return None


def write_gguf(folder: str, target: Path) -> None:
    """Write a BERT for llama.cpp, and its tokenizer.

    Matrices are in Q8_0, blocks of 32 weights with one scale. Vectors, positions and token types
    are in fp32, as llama.cpp's own converter writes them.

    Args:
        folder: a model that ``unavailable_reason`` has nothing against.
        target: the folder to make.
    """
    import gguf
    import torch
    from transformers import AutoTokenizer, BertModel

    model = BertModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
    config = model.config
    target.mkdir()
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    writer = gguf.GGUFWriter(target / GGUF, "bert")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config.vocab_size)
    writer.add_token_type_count(config.type_vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        plain = tensor.dim() == 1 or "position" in name or "token_type" in name
        kind = gguf.GGMLQuantizationType.F32 if plain else gguf.GGMLQuantizationType.Q8_0
        weights = gguf.quantize(tensor.numpy(), kind)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), weights, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@dataclass(frozen=True)
class Peer:
    """A contender as ``serve`` asks it.

    Attributes:
        embed: N texts to [N, H] normalised embeddings.
    """

    embed: Callable[[list[str]], Any]

    def before(self) -> None:
        """Nothing is kept between runs."""


def sentences(folder: Path, backend: str, prompt: str) -> Peer:
    """``SentenceTransformer.encode`` with one of its backends and otherwise default settings."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), backend=backend, device="cpu")
    return Peer(
        partial(model.encode, prompt=prompt, normalize_embeddings=True, show_progress_bar=False)
    )


def fastembed(folder: Path, prompt: str) -> Peer:
    """``TextEmbedding.embed`` on all cores and with otherwise default settings."""
    import numpy as np
    import torch
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model=folder.name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=folder.name),  # one is required; the path below is read instead
        dim=0,  # only for fastembed's list of models
        model_file="onnx/model.onnx",
    )
    model = TextEmbedding(
        folder.name, threads=torch.get_num_threads(), cuda=False, specific_model_path=str(folder)
    )
    return Peer(lambda texts: np.array(list(model.embed([prompt + text for text in texts]))))


def batched(run: Run, tokenizer: Any, prompt: str, budget: int, most: int | None = None) -> Peer:
    """A function of token ids on batches of texts, longest first; see ``batches``."""
    import numpy as np

    def embed(texts: list[str]) -> Any:
        rows = tokenizer([prompt + text for text in texts], truncation=True)["input_ids"]
        plan = list(batches([len(row) for row in rows], budget, most))
        sums = np.concatenate([run([rows[place] for place in places]) for places in plan])
        out = np.empty_like(sums)
        out[np.concatenate(plan)] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return out

    return Peer(embed)


def batches(lengths: list[int], budget: int, most: int | None = None) -> Iterator[list[int]]:
    """Indices of texts, longest first, in batches of at most ``budget`` tokens (or one text).

    Args:
        lengths: tokens of each text.
        budget: most tokens in a batch.
        most: most texts in a batch; None for any number.
    """
    batch: list[int] = []
    tokens = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and (tokens + lengths[place] > budget or len(batch) == most):
            yield batch
            batch, tokens = [], 0
        batch.append(place)
        tokens += lengths[place]
    if batch:
        yield batch


def optimum(folder: Path, tokenizer: Any) -> Run:
    """optimum's ``ORTModelForFeatureExtraction`` on padded batches."""
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    model = ORTModelForFeatureExtraction.from_pretrained(
        folder, subfolder="onnx", file_name="model.onnx", provider="CPUExecutionProvider"
    )

    def run(rows: list[list[int]]) -> Any:
        padded = tokenizer.pad({"input_ids": rows}, return_tensors="np")
        states = model(**padded).last_hidden_state
        return (states * padded["attention_mask"][:, :, None]).sum(axis=1)

    return run


def load_gguf(file: Path) -> Any:
    """A model for ``LlamaCpp``."""
    import llama_cpp

    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # it prints every tensor
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        str(file).encode(), llama_cpp.llama_model_default_params()
    )
    if not model:
        raise RuntimeError(f"llama.cpp does not load {file}")
    return model


class LlamaCpp:
    """llama.cpp's encoder with its own mean pooling, on all cores.

    Args:
        model: a model from ``load_gguf``.
        budget: most tokens in a batch, unless one text has more.
    """

    def __init__(self, model: Any, budget: int):
        import llama_cpp
        import numpy as np
        import torch

        size = max(budget, llama_cpp.llama_model_n_ctx_train(model))
        self.api, self.width = llama_cpp, llama_cpp.llama_model_n_embd(model)
        self.most = min(size, llama_cpp.llama_max_parallel_sequences())  # texts in a batch
        wanted = llama_cpp.llama_context_default_params()
        wanted.n_ctx = wanted.n_batch = wanted.n_ubatch = size
        wanted.n_seq_max, wanted.kv_unified = self.most, True
        wanted.n_threads = wanted.n_threads_batch = torch.get_num_threads()
        wanted.embeddings = True
        self.context = llama_cpp.llama_init_from_model(model, wanted)
        if not self.context:
            raise RuntimeError(f"llama.cpp has no memory for batches of {size} tokens")
        self.ids, self.positions, self.texts = np.zeros((3, size), dtype=np.int32)
        self.ones = np.ones(size, dtype=np.int32)
        self.outputs = np.ones(size, dtype=np.int8)
        step = self.texts.itemsize * np.arange(size, dtype=np.uintp)
        self.pointers = self.texts.ctypes.data + step  # a token's list of texts has one entry

    def __call__(self, rows: list[list[int]]) -> Any:
        """Token ids of B texts to their means [B, H]."""
        import numpy as np

        tokens = sum(map(len, rows))
        self.ids[:tokens] = np.concatenate(rows)
        self.positions[:tokens] = np.concatenate([np.arange(len(row)) for row in rows])
        self.texts[:tokens] = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        batch = self.api.llama_batch(
            n_tokens=tokens,
            token=_pointer(self.ids, ctypes.c_int32),
            pos=_pointer(self.positions, ctypes.c_int32),
            n_seq_id=_pointer(self.ones, ctypes.c_int32),
            seq_id=_pointer(self.pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self.outputs, ctypes.c_int8),
        )
        code = self.api.llama_encode(self.context, batch)
        if code:
            raise RuntimeError(f"llama_encode returns {code} for {tokens} tokens")
        means = [
            np.ctypeslib.as_array(
                self.api.llama_get_embeddings_seq(self.context, text), (self.width,)
            )
            for text in range(len(rows))
        ]
        return np.array(means)


def _pointer(array: Any, kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


def main(what: str, *rest: str) -> None:
    """``convert FOLDER SCRATCH``, or ``serve NAME SCRATCH PROMPT FD``."""
    if what == "convert":
        return convert(*rest)
    name, scratch, prompt, number = rest
    folder = Path(scratch) / FOLDERS[name]
    # Memory that is allocated before "ready" does not count as the contender's.
    import_module("sentence_transformers")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    @cache
    def load() -> Any:
        if name == OPTIMUM:
            return optimum(folder, tokenizer)
        if name == LLAMA_CPP:
            return load_gguf(folder / GGUF)
        if name == FASTEMBED:
            return fastembed(folder, prompt)
        return sentences(folder, name.split()[1], prompt)

    def make(budget: int) -> Peer:
        if name == OPTIMUM:
            return batched(load(), tokenizer, prompt, budget)
        if name == LLAMA_CPP:
            run = LlamaCpp(load(), budget)
            return batched(run, tokenizer, prompt, budget, run.most)
        return load()

    serve(Connection(int(number)), make)


if __name__ == "__main__":
    main(*sys.argv[1:])
