"""Loads transformers' tokenizer of a model folder, or recalls what was loaded from the same files.

Importing transformers and reading a tokenizer take seconds. A fast tokenizer is therefore kept in
the cache in the tokenizers library's own format, under the digest of the folder's small files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xtremely.engine.foreign import foreign
from xtremely.engine.text.python_tokenizer import PythonTokenizer
from xtremely.engine.text.vocabulary import load_tokenizer
from xtremely.files.cache import cache_folder, recall, remember
from xtremely.files.documents import fit, parse_json
from xtremely.files.writing import file_digest

WEIGHTS = (".safetensors", ".bin", ".pt", ".onnx", ".data")  # files that no tokenizer reads


@dataclass(frozen=True)
class Facts:
    """What transformers knows of a tokenizer besides its text processing.

    Attributes:
        name: of transformers' class.
        size: number of pieces, added ones included.
        ids: number of different ids.
        largest: the largest id, -1 if there is none.
        ordinary: number of ids that are not those of special tokens.
        truncation_side: the side on which long texts are cut.
        unknown: id of the unknown token, if it has one.
        padding: id of the padding token, if it has one.
        special_ids: ids of all special tokens.
        inputs: names of the inputs that it gives a model.
        splits_specials: whether a special token that is written in a text is text.
    """

    name: str
    size: int
    ids: int
    largest: int
    ordinary: int
    truncation_side: str
    unknown: int | None
    padding: int | None
    special_ids: tuple[int, ...]
    inputs: tuple[str, ...]
    splits_specials: bool


@dataclass(frozen=True)
class Loaded:
    """A model's tokenizer.

    Attributes:
        facts: what is known of it.
        backend: the tokenizers library's tokenizer, or what stands in for it.
        fast: whether it is the tokenizers library's.
    """

    facts: Facts
    backend: Any
    fast: bool


def load(folder: Path) -> Loaded:
    """The tokenizer of a model folder; raises InputError as ``load_tokenizer`` does."""
    path = cache_folder() / "tokenizers" / _digest(folder)
    kept = recall(path)
    if kept is not None:
        return _decoded(folder, kept)
    loaded = load_tokenizer(folder)
    with foreign(f"{folder}: no usable tokenizer"):
        backend: Any = loaded.backend_tokenizer if loaded.is_fast else PythonTokenizer(loaded)
        ids = {*backend.get_vocab(with_added_tokens=True).values()}
        facts = Facts(
            type(loaded).__name__,
            len(loaded),
            len(ids),
            max(ids, default=-1),
            len(ids - {*loaded.all_special_ids}),
            loaded.truncation_side,
            loaded.unk_token_id,
            loaded.pad_token_id,
            tuple(loaded.all_special_ids),
            tuple(loaded.model_input_names),
            loaded.split_special_tokens,
        )
        if not loaded.is_fast:
            return Loaded(facts, backend, False)
        backend.no_padding()
        backend.no_truncation()
    found = Loaded(facts, backend, True)
    try:
        encoded = _encoded(found)
    except Exception:  # a part of it is written in Python, such as RoFormer's division into words
        return found
    remember(path, encoded)
    return found


def _encoded(loaded: Loaded) -> bytes:
    """The facts as a line of JSON, then the tokenizer as the tokenizers library writes it."""
    return f"{json.dumps(asdict(loaded.facts))}\n{loaded.backend.to_str()}".encode()


def _decoded(folder: Path, kept: bytes) -> Loaded:
    from tokenizers import Tokenizer

    facts, _, tokenizer = kept.partition(b"\n")
    with foreign(f"{folder}: no usable tokenizer"):
        known = fit(parse_json(facts.decode(), dict[str, Any], "facts"), Facts, "facts")
        backend = Tokenizer.from_buffer(tokenizer)
        backend.encode_special_tokens = known.splits_specials  # which its own format leaves out
        return Loaded(known, backend, True)


def _digest(folder: Path) -> str:
    """A digest of all that a folder's tokenizer depends on, and of what is kept of it."""
    libraries = [f"{name} {version(name)}" for name in ("transformers", "tokenizers")]
    files = [path for path in folder.iterdir() if path.is_file() and path.suffix not in WEIGHTS]
    about = [f"{path.name}\0{file_digest(path)}" for path in sorted(files)]
    known = [field.name for field in fields(Facts)]
    every = "\n".join([*libraries, *known, *about]).encode(errors="surrogateescape")
    return hashlib.sha256(every).hexdigest()
