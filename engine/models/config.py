"""The configuration that all packed encoders have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtremely.engine.config_json import Count, Layers, Length
from xtremely.engine.models.activations import GELU, NAMES
from xtremely.kernels.guard import InputError, require


class NotPacked(InputError):
    """The packed encoder lacks a setting of config.json; transformers runs the model, padded."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes and settings of an encoder of any family.

    Attributes:
        model_type: Hugging Face's name of the architecture.
        layers: number of transformer layers; hidden state 0 is the output of the embeddings.
        hidden: width of a hidden state.
        heads: attention heads.
        intermediate: width of the feed-forward layer, after the gate if it has one.
        vocabulary: rows of the word embedding table.
        max_length: longest sequence in tokens, special tokens included.
        eps: LayerNorm's epsilon.
        types: rows of the token type table; 0 without one.
        thetas: RoPE base of every layer; empty without RoPE.
        activation: of the feed-forward layers, a key of ``activations.ACTIVATIONS``.
        position_offset: unused rows at the start of the position table.
        distances: ``relative_key`` or ``relative_key_query`` if attention scores depend on the
            distance of two tokens by a learned table; None without one.
        windows: attention window of every layer, in tokens on either side, None for global
            attention; empty where all layers are global.
    """

    model_type: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    max_length: int
    eps: float
    types: int = 0
    activation: str = GELU
    distances: str | None = None
    position_offset: int = 0
    thetas: tuple[float, ...] = ()
    windows: tuple[int | None, ...] = ()

    @property
    def positions(self) -> int:
        """Rows of the position table, unused ones included."""
        return self.max_length + self.position_offset

    @property
    def attention_kernel(self) -> str:
        """Name of the Triton kernel that computes its attention."""
        return "relative_attention" if self.distances else "attention"

    @property
    def unplaced(self) -> int | None:
        """Id of the token without a position of its own: the RoBERTa line's padding, else None.

        There, positions count from the padding id on.
        """
        return self.position_offset - 1 if self.position_offset else None


@dataclass(frozen=True)
class Sizes:
    """Fields of config.json that most families have."""

    num_hidden_layers: Layers
    hidden_size: Count
    num_attention_heads: Count
    intermediate_size: Count
    vocab_size: Count
    max_position_embeddings: Length

    def arguments(self, file: Path, position_offset: int = 0) -> dict[str, Any]:
        """The arguments of ``EncoderConfig`` that follow from these fields.

        Args:
            file: the configuration, for error messages.
            position_offset: see ``EncoderConfig``.

        Raises:
            InputError: no position is left for a token.
        """
        positions = self.max_position_embeddings
        require(
            positions > position_offset,
            f"{file}: 'max_position_embeddings' is {positions}; legal: more than"
            f" {position_offset}, as the first {position_offset} positions are not used",
        )
        return {
            "layers": self.num_hidden_layers,
            "hidden": self.hidden_size,
            "heads": self.num_attention_heads,
            "intermediate": self.intermediate_size,
            "vocabulary": self.vocab_size,
            "max_length": positions - position_offset,
            "position_offset": position_offset,
        }


def require_setting(raw: dict[str, Any], name: str, legal: Any, file: Path) -> None:
    """Raise InputError unless a setting is absent or has the one value that is supported."""
    got = raw.get(name, legal)
    require(
        got == legal,
        f"{file}: {name} {got!r} is not supported; the packed encoder knows {legal!r}",
    )


def require_packed(raw: dict[str, Any], name: str, legal: Any, file: Path) -> None:
    """``require_setting`` for a model that runs padded otherwise: raises NotPacked."""
    try:
        require_setting(raw, name, legal, file)
    except InputError as error:
        raise NotPacked(str(error)) from error


def activation(raw: dict[str, Any], field: str, file: Path) -> str:
    """The key in ``ACTIVATIONS`` of the activation that a field of config.json names.

    Raises:
        NotPacked: it is not one of them.
    """
    named = raw.get(field, "gelu")
    if not isinstance(named, str) or named not in NAMES:
        raise NotPacked(
            f"{file}: {field} {named!r} is not one that packed encoders know ({', '.join(NAMES)})"
        )
    return NAMES[named]
