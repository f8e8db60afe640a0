"""What a model folder's config.json says of any model, as far as this project asks."""

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
MAX_BYTES = 2**26  # of a configuration
# They differ from BERT in one thing: their position table starts after the padding index.
ROBERTA_TYPES = ("xlm-roberta", "roberta", "camembert")
MAX_LAYERS, MAX_LENGTH = 1000, 2**20
Count = Annotated[int, Field(ge=1, lt=2**31)]
Layers = Annotated[int, Field(ge=1, le=MAX_LAYERS)]
Length = Annotated[int, Field(ge=1, le=MAX_LENGTH)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Epsilon = Annotated[float, Field(ge=0, le=1)]
Numbers = Literal["float16", "bfloat16", "float32", "float64", "auto"]


@dataclass(frozen=True)
class About:
    """What config.json says of any model, as far as this project asks.

    Attributes:
        model_type: Hugging Face's name of the architecture; empty where it says nothing.
        architectures: classes that the checkpoint was saved from.
        id2label: number of an output -> its name.
        label2id: the same the other way round; said twice, as transformers writes it.
        vocab_size: rows of the word table, where it is said.
        max_position_embeddings: positions, where they are said.
        pad_token_id: the padding token, where there is one.
        dtype: what the weights are stored in.
        torch_dtype: its name before transformers 5.
    """

    model_type: str = ""
    architectures: tuple[str, ...] | None = None
    id2label: dict[str, str | int] | None = None
    label2id: dict[str, object] | None = None
    vocab_size: Count | None = None
    max_position_embeddings: int | None = None
    pad_token_id: int | None = None
    dtype: Numbers | None = None
    torch_dtype: Numbers | None = None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: it cannot be read, or is no JSON object.
    """
    return documents.read_json(path, dict[str, Any])


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json, of which the fields that ``about`` reads have their types.

    Raises:
        InputError: there is none, the folder holds an adapter, the file cannot be read, or a field
            has another type; file and field are named.
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
    """What the config.json of the folder ``where`` says of any model.

    Raises:
        InputError: a field has another type, or ``id2label`` numbers nothing.
    """
    said = documents.fit(raw, About, str(where / CONFIG))
    odd = [number for number in said.id2label or {} if not re.fullmatch("[0-9]{1,9}", number)]
    require(
        not odd,
        f"{where / CONFIG}: {ascii(f'id2label.{odd[0]}' if odd else '')} is the name of no output;"
        ' legal: names under "0", "1" and so on',
    )
    return said


def position_offset(model_type: str, pad: int | None) -> int:
    """Rows at the head of a position table that no token uses: the RoBERTa line's way of padding.

    Args:
        model_type: Hugging Face's name of the architecture.
        pad: the padding token of config.json, None where it says nothing.
    """
    return (1 if pad is None else pad) + 1 if model_type in ROBERTA_TYPES else 0


@dataclass(frozen=True)
class _Loaded:
    """Fields of transformers' configurations, as far as a class of them has them."""

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
    """transformers' configuration of a model folder; its sizes are numbers within reason.

    Raises:
        InputError: it cannot be read, or a size is none.
    """
    from transformers import AutoConfig

    kind = read_config(folder).get("model_type")
    with foreign(f"{folder / CONFIG}: model type {kind!r} cannot be loaded"):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        said = {one.name: getattr(config, one.name, None) for one in fields(_Loaded)}
    documents.fit(said, _Loaded, str(folder / CONFIG))
    return config
