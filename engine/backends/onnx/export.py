"""Exports a model to ONNX: writes the graph, fuses and converts it, and checks the result.

The file runs in plain onnxruntime. It is compared with this project's torch encoder, with and
without onnxruntime's fusion, as fusion has produced wrong embeddings before. A file that differs
too much is discarded.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from xtremely.engine.backends.onnx.graph import OPSET
from xtremely.engine.backends.onnx.outputs import Product, build, described
from xtremely.engine.backends.onnx.session import runtime
from xtremely.engine.backends.onnx.verify import Agreement, ReferenceOutputs
from xtremely.engine.backends.packed import Packed
from xtremely.engine.config_json import CONFIG
from xtremely.engine.hub.conventions import conventions, reading
from xtremely.engine.hub.locate import folder_hash
from xtremely.engine.models.config import EncoderConfig
from xtremely.engine.models.families import family_of
from xtremely.engine.quantization.smoothquant import activation_absmax
from xtremely.engine.text.vocabulary import load_tokenizer, lower_case
from xtremely.kernels.guard import UsageError, require

# Precision -> largest legal difference from torch in fp32, see ``Agreement``.
BOUNDS = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.2}
# Bytes above which weights go into a file of their own: a protobuf holds at most 2 GB.
EXTERNAL_FROM = 1 << 30
FILE, DATA = "model.onnx", "model.onnx.data"
UNIT = "scale_of_one"


def export(
    folder: Path, reference: Packed, product: Product, precision: str, out: Path, name: str = ""
) -> Agreement:
    """Write a model as ONNX with its tokenizer into a folder that must not exist yet.

    Args:
        folder: a Hugging Face model folder.
        reference: the reference: its encoder in torch, on the CPU in fp32.
        product: the output of the graph; a head in it must be on the CPU in fp32, too.
        precision: fp32; fp16, for GPUs; or int8, for the word table and for weights and activations
            of linear layers.
        out: the folder to make, with the model, its tokenizer and its configuration.
        name: the model's name in the metadata.

    Returns:
        The difference between the file and torch.

    Raises:
        UsageError: no such precision, or a packed graph in fp16.
        InputError: ``out`` exists, or the file differs too much from torch.
    """
    if precision not in BOUNDS:
        legal = ", ".join(BOUNDS)
        raise UsageError(f"precision {precision!r} is not known to ONNX; legal: {legal}")
    if product.packed and precision == "fp16":
        raise UsageError(
            "packed models are exported in fp32 and int8, got fp16, which is for GPUs; export it"
            " without --packed"
        )
    kind = reference.encoder.config.model_type
    known = family_of(reference.encoder.config).exported
    require(
        precision in known,
        f"{folder}: model type {kind!r} is not exported in {precision}; legal: {', '.join(known)}",
    )
    require(not out.exists(), f"{out}: exists already; name a new folder")
    expected = ReferenceOutputs.of(reference, product, folder)
    about = {
        "model": name or folder.name,
        "model_hash": folder_hash(folder),
        "precision": precision,
        "opset": str(OPSET),
        "max_length": str(reference.max_length),
        "written_by": f"xtremely {version('xtremely')}, onnx {version('onnx')},"
        f" onnxruntime {runtime().__version__}",
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        kept = _tried(expected, precision, about, building)
        shutil.copyfile(folder / CONFIG, building / CONFIG)
        _write_tokenizer(folder, building, reference.max_length)
        shown = expected.agreement_as_shown(building / FILE)
        require(
            shown.difference <= BOUNDS[precision],
            f"{about['model']}: with the tokenizer beside it the ONNX model differs from torch by"
            f" {shown.difference:.3g} of its size (at most {BOUNDS[precision]:g} is kept); nothing"
            " was written",
        )
        for made in building.iterdir():
            made.chmod(0o644)
        building.chmod(0o755)
        building.replace(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return kept


def _write_tokenizer(folder: Path, out: Path, longest: int) -> None:
    """Write the model's tokenizer, which cuts and lower-cases texts as the model's files say."""
    tokenizer, own = load_tokenizer(folder), conventions(folder, folder.name)
    if reading(folder).do_lower_case:
        lower_case(folder, getattr(tokenizer, "backend_tokenizer", None))
    tokenizer.model_max_length = min(own.max_length or longest, longest)
    tokenizer.padding_side = "right"  # the graph counts positions from the first column
    tokenizer.save_pretrained(str(out))


def _tried(
    expected: ReferenceOutputs, precision: str, about: dict[str, str], folder: Path
) -> Agreement:
    """Write the fused model if it agrees with torch, else the plain one; InputError if neither."""
    found = []
    for fusing, (agreement, path) in enumerate(attempts(expected, precision, about, folder)):
        if agreement.difference <= BOUNDS[precision]:
            found.append(agreement)
            for file in path.parent.iterdir():
                file.replace(folder / file.name)
            continue
        remark = (
            f"differs from torch by {agreement.difference:.3g} of its size (at most"
            f" {BOUNDS[precision]:g} is kept)"
        )
        require(bool(fusing), f"{about['model']}: the ONNX model {remark}; nothing was written")
        warnings.warn(f"what onnxruntime's optimizer made {remark}: left out", stacklevel=3)
    return found[-1]


def attempts(
    expected: ReferenceOutputs, precision: str, about: dict[str, str], folder: Path
) -> Iterator[tuple[Agreement, Path]]:
    """Write and try two models: the plain one, then the one with onnxruntime's fused operators.

    Args:
        expected: what they have to agree with.
        precision: one of ``BOUNDS``.
        about: entries of their metadata.
        folder: where their files are written; each is gone when the next is asked for.

    Yields:
        The agreement of a model with torch, and its file.
    """
    encoder, product = expected.reference.encoder, expected.product
    plain = build(
        encoder,
        product,
        activation_absmax(encoder, expected.batch)[0] if precision == "int8" else None,
    )
    for step, model in (("no", plain), ("yes", fused(plain, encoder.config))):
        if precision == "fp16":
            model = halved(model)
        described(model, product, about | {"fused": step})
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = Path(scratch) / FILE
            save(model, path)
            yield expected.agreement(path), path


def fused(model: onnx.ModelProto, config: EncoderConfig) -> onnx.ModelProto:
    """The model with onnxruntime's fused operators (adds with norms, biases with GELU)."""
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_by_fusion

    # It logs for every norm that shapes are unknown, because shape inference is off.
    logging.getLogger("fusion_skiplayernorm").setLevel(logging.ERROR)
    options = FusionOptions("bert")
    # These fusions expect graphs of torch's exporter, with separate products for Q, K and V.
    options.enable_embed_layer_norm = options.enable_attention = False
    options.enable_rotary_embeddings = options.enable_shape_inference = False
    made = optimize_by_fusion(_copy(model), "bert", config.heads, config.hidden, options).model
    del made.graph.input[:]  # the optimizer drops those that no node reads, as the mask at layer 0
    made.graph.input.extend(model.graph.input)
    _fuse_whole_products(made.graph)
    if all(opset.domain != "com.microsoft" for opset in made.opset_import):
        made.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return made


def _fuse_whole_products(graph: onnx.GraphProto) -> None:
    """Fuse integer products with the cast and the output scales after them."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    for node in products:
        (cast,) = readers[node.output[0]]
        (scaled,) = readers[cast.output[0]]
        rounded, weights, zero = node.input
        node.op_type, node.domain = "MatMulIntegerToFloat", "com.microsoft"
        del node.input[:]
        node.input.extend([rounded, weights, UNIT, scaled.input[1], zero])
        node.output[0] = scaled.output[0]
        graph.node.remove(cast)
        graph.node.remove(scaled)
    if products:
        graph.initializer.append(onnx.numpy_helper.from_array(np.ones((), np.float32), UNIT))


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in fp16; the types of inputs and outputs do not change."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(_copy(model), keep_io_types=True, disable_shape_infer=True)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model; large weights go into a second file beside it."""
    large = sum(len(one.raw_data) for one in model.graph.initializer) > EXTERNAL_FROM
    options: dict[str, Any] = {"save_as_external_data": True, "location": DATA} if large else {}
    onnx.save_model(model, str(path), **options)
