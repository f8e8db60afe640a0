"""Reads the fields of config.json that models of all kinds have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from xtremely.engine.foreign import foreign
from xtremely.files import documents
from xtremely.kernels.guard import require

CONFIG, ADAPTER = "config.json", "adapter_config.json"
MAX_BYTES = 2**26  # largest configuration file
# Models that differ from BERT only in that positions are counted from the padding id + 1.
ROBERTA_TYPES = ("xlm-roberta", "roberta", "camembert")
# Model types that transformers loads and that would be run wrongly here -> why.
REFUSED = {
    "xlnet": "it pads texts on the left and puts its classification token last, which pooling and"
    " heads do not follow here",
}
# Settings of calls of transformers' models, which change no result -> the value relied on here.
CALLS = {
    "return_dict": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "chunk_size_feed_forward": 0,
}
MAX_LAYERS, MAX_LENGTH = 1000, 2**20
Count = Annotated[int, Field(ge=1, lt=2**31)]
Layers = Annotated[int, Field(ge=1, le=MAX_LAYERS)]
Length = Annotated[int, Field(ge=1, le=MAX_LENGTH)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Epsilon = Annotated[float, Field(ge=0, le=1)]
Numbers = Literal["float16", "bfloat16", "float32", "float64", "auto"]


@dataclass(frozen=True)
class About:
    """Fields of config.json that this project uses for models of all kinds.

    Attributes:
        model_type: Hugging Face's name of the architecture; empty if it is missing.
        architectures: classes from which the checkpoint was saved.
        id2label: number of an output -> its label.
        label2id: the inverse of ``id2label``; transformers writes both, unless there are two labels
            without names.
        num_labels: number of labels where there is no ``id2label``.
        vocab_size: rows of the word embedding table.
        max_position_embeddings: rows of the position table.
        pad_token_id: id of the padding token.
        type_vocab_size: rows of the token type table; 0 without one.
        dtype: data type of the stored weights.
        torch_dtype: name of ``dtype`` before transformers 5.
    """

    model_type: str = ""
    architectures: tuple[str, ...] | None = None
    id2label: dict[str, str | int] | None = None
    label2id: dict[str, object] | None = None
    num_labels: Count | None = None
    vocab_size: Count | None = None
    max_position_embeddings: int | None = None
    pad_token_id: int | None = None
    type_vocab_size: int | None = None
    dtype: Numbers | None = None
    torch_dtype: Numbers | None = None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        InputError: it cannot be read or is not a JSON object.
    """
    return documents.read_json(path, dict[str, Any])


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model folder's config.json; the fields of ``About`` are checked.

    Raises:
        InputError: there is no such file, the folder holds an adapter, the file cannot be read, or
            a field has the wrong type; file and field are named.
    """
    require(
        not (folder / ADAPTER).exists(),
        f"{folder / ADAPTER}: adapters (PEFT, LoRA) are not applied; merge it into its model with"
        " merge_and_unload(), save that with save_pretrained and name its folder",
    )
    inner = sorted(path.parent.name for path in folder.glob(f"*_Transformer/{CONFIG}"))
    require(
        (folder / CONFIG).exists() or not inner,
        f"{folder}: no {CONFIG} here, but one in {''.join(inner[:1])}, where old versions of"
        " sentence-transformers put it; load the model with a new one and save it again",
    )
    require(
        (folder / CONFIG).exists(),
        f"{folder}: no {CONFIG} here; expected an ordinary Hugging Face model folder",
    )
    raw = documents.read_json(folder / CONFIG, dict[str, Any], MAX_BYTES)
    about(raw, folder)
    return raw


def about(raw: dict[str, Any], where: Path) -> About:
    """The fields of ``About`` in the config.json of the folder ``where``.

    Raises:
        InputError: a field has the wrong type, or a key of ``id2label`` is not a number.
    """
    facts = documents.fit(raw, About, str(where / CONFIG))
    odd = [number for number in facts.id2label or {} if not re.fullmatch("[0-9]{1,9}", number)]
    require(
        not odd,
        f"{where / CONFIG}: {ascii(f'id2label.{odd[0]}' if odd else '')} is the name of no output;"
        ' legal: names under "0", "1" and so on',
    )
    return facts


def position_offset(model_type: str, pad: int | None) -> int:
    """Unused rows at the start of a position table, as in RoBERTa-style models; 0 in others.

    MPNet counts from padding id 1, whatever config.json says.

    Args:
        model_type: Hugging Face's name of the architecture.
        pad: the padding id of config.json; None if it is missing.
    """
    if model_type == "mpnet":
        return 2
    counted = model_type in (*ROBERTA_TYPES, "xlm-roberta-xl")
    return (1 if pad is None else pad) + 1 if counted else 0


def _shown(languages: object) -> str:
    """The languages of an X-MOD's configuration, for a message; by default those of transformers"""
    return ", ".join(map(str, languages)) if isinstance(languages, list) else "en_XX"


@dataclass(frozen=True)
class _Loaded:
    """Fields of transformers' configuration classes; a class may lack some."""

    num_hidden_layers: Layers | None
    hidden_size: Count | None
    vocab_size: Count | None
    max_position_embeddings: Count | None
    num_attention_heads: Count | None
    intermediate_size: Count | None
    layer_norm_eps: Epsilon | None
    norm_eps: Epsilon | None
    rms_norm_eps: Epsilon | None


def configuration(folder: Path) -> Any:
    """transformers' configuration of a model folder, with its sizes checked.

    Raises:
        InputError: it cannot be read, or a size is not a number in its legal range.
    """
    from transformers import AutoConfig

    raw = read_config(folder)
    kind = raw.get("model_type")
    require(
        kind not in REFUSED,
        f"{folder / CONFIG}: model type {kind!r} does not run: {REFUSED.get(str(kind))}; take"
        " another encoder, such as an XLM-R",
    )
    require(
        kind != "xmod" or raw.get("default_language") is not None,
        f"{folder / CONFIG}: 'default_language' is missing, so that none of X-MOD's adapters is"
        f" used; legal: one of its languages ({_shown(raw.get('languages'))})",
    )
    with foreign(f"{folder / CONFIG}: model type {kind!r} cannot be loaded"):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        facts = {one.name: getattr(config, one.name, None) for one in fields(_Loaded)}
    documents.fit(facts, _Loaded, str(folder / CONFIG))
    for name, value in CALLS.items():
        if hasattr(config, name):
            setattr(config, name, value)
    return config
