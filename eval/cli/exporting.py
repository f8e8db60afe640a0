"""``xtremely export``: from the options of the command to an exported model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xtremely.engine.backends.onnx.export import BOUNDS, export
from xtremely.engine.backends.onnx.outputs import Product
from xtremely.engine.backends.packed import Packed
from xtremely.engine.config_json import read_config
from xtremely.engine.hub.conventions import OWN
from xtremely.engine.hub.locate import locate
from xtremely.engine.hub.stack import load_stack
from xtremely.engine.models.families import exportable
from xtremely.engine.runtime import ENGINE_POOLINGS, Engine
from xtremely.files.writing import check_writable
from xtremely.kernels.guard import UsageError, require, unknown

# Name of a kind of head on the command line -> its name in the engine.
HEADS = {
    "classification": "sequence classification",
    "tagging": "token classification",
    "answering": "question answering",
    "choice": "multiple choice",
}


def export_model(
    model: str,
    out: Path,
    precision: str,
    head: str | None = None,
    layer: int | None = None,
    pooling: str | None = None,
    packed: bool = False,
    allow_pickle: bool = False,
) -> str:
    """Export a model.

    Args:
        model: its name or folder.
        out: the folder to make.
        precision: fp32, fp16 or int8.
        head: one of ``HEADS``; None for sentence embeddings.
        layer: hidden state of embeddings; None for the last.
        pooling: of embeddings; None for the model's own.
        packed: whether the graph takes packed inputs instead of padded ones.
        allow_pickle: whether pickled weights may be read.

    Returns:
        A sentence about what was written.

    Raises:
        UsageError: a name that does not exist, settings of embeddings for a head, or a packed
            graph in fp16.
        InputError: a model that is not exported, or whose export failed its trial.
    """
    if head is not None and head not in HEADS:
        raise unknown("head", head, HEADS)
    if precision not in BOUNDS:
        raise UsageError(
            f"precision {precision!r} is not known to ONNX; legal: {', '.join(BOUNDS)}"
        )
    _check_out(out)
    folder = locate(model, allow_pickle)
    exportable(read_config(folder), folder)
    engine = Engine.load(model, backend="torch", device="cpu", allow_pickle=allow_pickle)
    assert isinstance(engine.backend, Packed)
    product = replace(_product(engine, head, layer, pooling), packed=packed)
    kept = export(engine.folder, engine.backend, product, precision, out, engine.name)
    form = "packed, " if packed else ""
    size = sum(path.stat().st_size for path in out.glob("model.onnx*"))
    return (
        f"{engine.name}, {product.task}, {form}{precision}: {size / 1e6:,.1f} MB -> {out};"
        f" differs from torch in fp32 by {kept.difference:.2g} of its size, {kept.worst:.2g} at"
        " most"
    )


def _check_out(out: Path) -> None:
    """Raise InputError unless a folder of this name can be made; nothing is ever overwritten."""
    require(str(out) not in ("", "."), "--out is empty or the current folder; name a new folder")
    there = out.exists() or out.is_symlink()
    require(not there, f"--out {out}: exists already, and is left as it is; name a new folder")
    check_writable(out.parent, "--out")


def _product(engine: Engine, head: str | None, layer: int | None, pooling: str | None) -> Product:
    depth, typed = engine.backend.layers, engine.tokenizer.typed
    if head is not None:
        if layer is not None or pooling is not None:
            raise UsageError("--layer and --pooling are for embeddings; a head has its own")
        kind = HEADS[head]
        return Product(kind, (depth,), head=engine.head(kind, None), typed=typed)
    chosen = depth if layer is None else layer
    if not 0 <= chosen <= depth:
        raise UsageError(f"layer {chosen} does not exist; {engine.name} has layers 0 to {depth}")
    if pooling not in (None, *ENGINE_POOLINGS):
        raise unknown("pooling", pooling, ENGINE_POOLINGS)
    own = engine.conventions
    by = own.named(pooling)
    if by != OWN:
        return Product("embedding", (chosen,), by, typed=typed)
    require(
        own.modules.include_prompt,
        f"{engine.folder}: its Pooling leaves out the prompt (include_prompt is false), which an"
        " ONNX model cannot, as it does not know the prompt; legal: --pooling mean or cls",
    )
    declared = own.modules if chosen == depth else own.modules.alone()
    stack = load_stack(declared, engine.backend.width)
    return Product("embedding", (chosen,), by, typed=typed, stack=stack, modules=str(declared))
