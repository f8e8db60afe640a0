"""Sum of word, position and type embeddings, with LayerNorm, in one pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.configurations import architecture
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.norm import WIDEST, WIDTHS, row_candidates, row_columns, row_config
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
IDS = (torch.int32, torch.int64)
UNUSED = ("POSITIONS", "TYPES")  # arguments that models with word embeddings only leave out


def embedding(
    word_ids: Tensor,
    position_ids: Tensor,
    type_ids: Tensor,
    words: Tensor,
    positions: Tensor | None,
    types: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> Tensor:
    """LayerNorm(words[word_ids] + positions[position_ids] + types[type_ids]), sums in fp32.

    Args:
        word_ids: [T] int32 or int64, rows of ``words``; their range is not checked.
        position_ids: [T], rows of ``positions``; their range is not checked.
        type_ids: [T], rows of ``types``.
        words: [vocabulary, H] fp32, fp16 or bf16; rows of all tables may be strided.
        positions: [longest, H]; None for a model without position embeddings.
        types: [types, H]; None for a model without token types.
        weight: [H].
        bias: [H].
        eps: added to the variance.

    Returns:
        [T, H], the precision of ``words``.
    """
    from xtremely.kernels import _embedding

    ids = {"word_ids": word_ids, "position_ids": position_ids, "type_ids": type_ids}
    tables = {"words": words, "positions": positions, "types": types}
    held = _checked(ids, tables, weight, bias)
    width = words.shape[1]
    for name, tensor in (*held.items(), ("weight", weight), ("bias", bias)):
        kernel_input(name, tensor, PRECISIONS)
    require(width <= WIDEST, f"rows of {width} are too wide; legal: up to {WIDEST}")
    out = torch.empty(len(word_ids), width, dtype=words.dtype, device=words.device)
    if len(word_ids):
        config = row_config("embedding", width, words.dtype, architecture(words.device))
        _embedding.embed_norm[len(word_ids),](
            *(tensor.contiguous() for tensor in ids.values()),
            *tables.values(),
            weight,
            bias,
            out,
            *(0 if table is None else table.stride(0) for table in tables.values()),
            eps,
            H=width,
            COLUMNS=row_columns(width),
            num_warps=config.warps,
        )
    return out


def embedding_ref(
    word_ids: Tensor,
    position_ids: Tensor,
    type_ids: Tensor,
    words: Tensor,
    positions: Tensor | None,
    types: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> Tensor:
    """``embedding`` in plain torch."""
    ids = {"word_ids": word_ids, "position_ids": position_ids, "type_ids": type_ids}
    _checked(ids, {"words": words, "positions": positions, "types": types}, weight, bias)
    x = lookup_ref(word_ids, position_ids, type_ids, words, positions, types)
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def lookup_ref(
    word_ids: Tensor,
    position_ids: Tensor,
    type_ids: Tensor,
    words: Tensor,
    positions: Tensor | None,
    types: Tensor | None,
) -> Tensor:
    """The sum of ``embedding`` without its LayerNorm, [T, H], in plain torch."""
    x = F.embedding(word_ids, words)
    if types is not None:
        x = x + F.embedding(type_ids, types)
    if positions is not None:
        x = x + F.embedding(position_ids, positions)
    return x


def _checked(
    ids: dict[str, Tensor], tables: dict[str, Tensor | None], weight: Tensor, bias: Tensor
) -> dict[str, Tensor]:
    """Check the arguments; the tables that are not None."""
    held = {name: table for name, table in tables.items() if table is not None}
    tokens, width = len(ids["word_ids"]), held["words"].shape[-1]
    for name, tensor in ids.items():
        require(
            tensor.dtype in IDS and tensor.shape == (tokens,),
            f"{name} is {tuple(tensor.shape)} {tensor.dtype}, expected ({tokens},) int32 or int64",
        )
    for name, tensor in held.items():
        require(
            tensor.ndim == 2 and tensor.shape[1] == width,
            f"{name} has shape {tuple(tensor.shape)}, expected [rows, {width}]",
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        require(
            tensor.shape == (width,),
            f"{name} has shape {tuple(tensor.shape)}, expected ({width},)",
        )
    return held


def make_inputs(
    precision: torch.dtype,
    device: torch.device,
    tokens: int,
    width: int,
    bare: bool = False,
    mean: float = 0,
) -> Inputs:
    """Random tables of 300 words, 70 positions and 2 types; only words if ``bare``."""
    rows = {"words": 300, "positions": 70, "types": 2}

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=precision)

    ids = {
        f"{name[:-1]}_ids": torch.randint(count, (tokens,), device=device)
        for name, count in rows.items()
    }
    tables: Inputs = {name: rand(count, width) for name, count in rows.items()}
    tables["words"] += mean
    if bare:
        tables |= {"positions": None, "types": None}
    return {**ids, **tables, "weight": rand(width), "bias": rand(width), "eps": 1e-5}


def cost(
    word_ids: Tensor, words: Tensor, positions: Tensor | None, types: Tensor | None, **_: object
) -> tuple[float, float]:
    """About 7 operations per value, plus one per table; one row of each read and one written."""
    values, tables = len(word_ids) * words.shape[1], 3 - (positions, types).count(None)
    return (6.0 + tables) * values, (1.0 + tables) * values * words.element_size()


def launches(architecture: str) -> list[Launch]:
    """The hidden sizes of MiniLM, XLM-R base and large, in every precision; also words only."""
    from xtremely.kernels import _embedding

    ids = dict.fromkeys(("WORD_IDS", "POSITION_IDS", "TYPE_IDS"), "*i64")
    found = []
    for precision in PRECISIONS:
        kind = TYPES[precision]
        names = ("WORDS", "POSITIONS", "TYPES", "WEIGHT", "BIAS", "OUT")
        strides = dict.fromkeys(("stride_words", "stride_positions", "stride_types"), "i32")
        signature = {**ids, **dict.fromkeys(names, f"*{kind}"), **strides, "eps": "fp32"}
        for width in WIDTHS:
            shape, constants = f"{width} {kind}", {"H": width, "COLUMNS": row_columns(width)}
            config = row_config("embedding", width, precision, architecture)
            found.append(Launch(shape, _embedding.embed_norm, signature, constants, config))
            bare = {name: type_ for name, type_ in signature.items() if name not in UNUSED}
            words_only = constants | dict.fromkeys(UNUSED)
            shape = f"{width} words {kind}"
            found.append(Launch(shape, _embedding.embed_norm, bare, words_only, config))
    return found


def tunings() -> list[Tuning]:
    """Every width and precision, with a batch of 32,768 tokens."""
    return [
        Tuning(f"{width} {TYPES[p]}", p, {"tokens": 32768, "width": width}, row_candidates(width))
        for p in PRECISIONS
        for width in WIDTHS
    ]


KERNEL = Kernel(
    name="embedding",
    run=embedding,
    ref=embedding_ref,
    cases=(
        {"tokens": 0, "width": 64},
        {"tokens": 1, "width": 1},
        {"tokens": 17, "width": 48},
        {"tokens": 5, "width": 131},
        {"tokens": 3, "width": 768},
        {"tokens": 5, "width": 48, "bare": True},
        {"tokens": 3, "width": 384, "mean": 1000},
        {"tokens": 2, "width": 131, "bare": True, "mean": -3000},
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=tunings,
)
