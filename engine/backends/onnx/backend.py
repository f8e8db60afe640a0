"""The backend that runs exported encoders in onnxruntime, on padded groups of similar length.

A packed batch is split into groups of similar length, each padded to its longest sequence. Inputs
and outputs are bound in place, so nothing is copied. ONNX files are exported at first use, stored
in the cache folder, and checked whenever they are opened.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.backends.onnx.export import BOUNDS, FILE, export
from xtremely.engine.backends.onnx.outputs import IDS, MASK, TYPES, Product
from xtremely.engine.backends.onnx.session import check_file, open_session, provider
from xtremely.engine.backends.packed import Packed
from xtremely.engine.hub.locate import folder_hash
from xtremely.engine.models.config import EncoderConfig
from xtremely.engine.models.encoder import require_fits
from xtremely.engine.models.ops import TORCH
from xtremely.engine.models.weights import encoder_tensors
from xtremely.engine.text.batch import Batch
from xtremely.files.cache import cache_folder
from xtremely.files.folders import remove_whole
from xtremely.files.trust import closed_folder, folder_distrust_reason, seal_folder
from xtremely.files.writing import temporary_name
from xtremely.kernels import packing
from xtremely.kernels.guard import InputError, UsageError, require

FORMAT = 3  # version of the files in the cache; raise it when the graph changes
# Largest share of padding in a group, and the step of its length. A GPU is fastest with large
# groups of few shapes, a CPU with little padding.
PADDING = {"cpu": 1 / 16, "cuda": 1 / 4}
STEP = {"cpu": 1, "cuda": 16}


@dataclass(frozen=True)
class Group:
    """Consecutive sequences of a batch that are padded to one length.

    Attributes:
        first: index of the first sequence in the batch.
        behind: index after the last sequence.
        start: first row of the first sequence.
        stop: row after the last one of the last sequence.
        length: tokens to which the sequences are padded.
    """

    first: int
    behind: int
    start: int
    stop: int
    length: int

    @property
    def computed(self) -> int:
        """Tokens that are computed for the group, padding included."""
        return (self.behind - self.first) * self.length


def groups(lengths: Collection[int], padding: float, step: int, most: int) -> Iterator[Group]:
    """Split a batch into groups.

    Args:
        lengths: tokens of each sequence, in order.
        padding: largest share of padding in a group, unless rounding to ``step`` exceeds it.
        step: padded lengths are multiples of it, but at most ``most``.
        most: longest sequence of the model, in tokens.
    """

    def rounded(length: int) -> int:
        return min(most, -(-length // step) * step)

    first = start = stop = longest = 0
    for place, length in enumerate(lengths):
        widest = max(longest, length)
        computed = rounded(widest) * (place + 1 - first)
        real = stop + length - start
        if place > first and computed - real > padding * computed:
            yield Group(first, place, start, stop, rounded(longest))
            first, start, widest = place, stop, length
        stop, longest = stop + length, widest
    if stop > start:
        yield Group(first, len(lengths), start, stop, rounded(longest))


def lacks_dot_products(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor is known to lack instructions for int8 dot products."""
    try:
        words = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return False
    return not words & {"avx512_vnni", "avx_vnni", "asimddp"}


class Onnx:
    """An exported encoder, with one file for every set of layers that is requested.

    Args:
        folder: a Hugging Face model folder.
        config: configuration of its encoder.
        wanted: the provider, one of ``session.PROVIDERS`` or ``auto``.
        device: device of the results.
        precision: fp32, fp16 or int8.

    Attributes:
        provider: onnxruntime's provider that runs.
    """

    name = "onnx"
    ops = TORCH

    def __init__(
        self,
        folder: Path,
        config: EncoderConfig,
        wanted: str,
        device: torch.device,
        precision: str,
    ):
        if precision not in BOUNDS:
            raise UsageError(
                f"precision {precision!r} does not run on the onnx backend; legal:"
                f" {', '.join(BOUNDS)}"
            )
        self.provider = provider(wanted, device)
        self.implementation = f"onnxruntime {self.provider}"
        if precision == "int8" and self.provider == "cpu" and lacks_dot_products():
            warnings.warn(
                "this processor has no instruction for int8 dot products (VNNI): int8 runs,"
                " but far slower than on one that has it",
                stacklevel=4,
            )
        self.folder, self.config = folder, config
        self.device, self.precision = device, precision
        self.layers, self.width = config.layers, config.hidden
        self.max_length, self.vocabulary = config.max_length, config.vocabulary
        self._typed = config.types > 1
        self._dtype = torch.float16 if precision == "fp16" else torch.float32
        self._hash = folder_hash(folder)
        if not any((cache_folder() / "onnx").glob(f"{self._hash[:16]}.*")):
            encoder_tensors(folder, config)  # raises an error for invalid weights
        self._sessions: dict[tuple[int, ...], Any] = {}

    def hidden(self, batch: Batch, layers: Collection[int]) -> dict[int, Tensor]:
        """The requested hidden states of a batch, each [T, H], without padding."""
        require_fits(batch, self.max_length)
        self._require_placed(batch)
        wanted = tuple(sorted(set(layers)))
        session = self._session(wanted)
        states = {layer: self._empty(batch.tokens) for layer in wanted}
        for group in self._groups(batch):
            for layer, found in zip(wanted, self._run(session, batch, group, wanted), strict=True):
                states[layer][group.start : group.stop] = found
        return {layer: state.to(self._dtype) for layer, state in states.items()}

    def _require_placed(self, batch: Batch) -> None:
        """Raise InputError if a text of a model of the RoBERTa line holds its padding token.

        The model gives that token no position of its own, the graph does.
        """
        padding = self.config.unplaced
        require(
            padding is None or not bool((batch.input_ids == padding).any()),
            f"{self.folder.name}: a text holds the model's padding token, id {padding}, which the"
            " exported model would place otherwise than transformers; take it out of the text, or"
            " use --backend torch",
        )

    def computed(self, batch: Batch) -> int:
        """Tokens that are computed for a batch, padding included."""
        return sum(group.computed for group in self._groups(batch))

    def pool(self, values: Tensor, batch: Batch, pooling: str) -> Tensor:
        """[T, H] hidden states to [B, H] fp32 vectors."""
        return self.ops.pool(values, batch.layout, pooling)

    def _groups(self, batch: Batch) -> Iterator[Group]:
        kind = self.device.type
        return groups(batch.layout.lengths, PADDING[kind], STEP[kind], self.max_length)

    def _run(
        self, session: Any, batch: Batch, group: Group, layers: tuple[int, ...]
    ) -> list[Tensor]:
        """A group's hidden states without padding, each [rows, H]."""
        lengths = batch.cu_seqlens.diff()[group.first : group.behind]
        borders = packing.cumulative(lengths)
        there = torch.arange(group.length, device=self.device) < lengths[:, None]

        def dense(values: Tensor) -> Tensor:
            rows = packing.Packed(values[group.start : group.stop], borders, group.length)
            return packing.unpack(rows).contiguous()

        inputs = {IDS: dense(batch.input_ids), MASK: there.long()}
        if self._typed:
            inputs[TYPES] = dense(batch.type_ids)
        shape = (group.behind - group.first, group.length)
        outputs = {f"hidden_{layer}": self._empty(*shape) for layer in layers}
        binding = session.io_binding()
        place = (self.device.type, self.device.index or 0)
        for name, value in inputs.items():
            binding.bind_input(name, *place, np.int64, tuple(value.shape), value.data_ptr())
        for name, value in outputs.items():
            binding.bind_output(name, *place, np.float32, tuple(value.shape), value.data_ptr())
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # onnxruntime has its own stream
        session.run_with_iobinding(binding)
        if group.computed == group.stop - group.start:
            return [value.view(-1, self.width) for value in outputs.values()]
        return [value[there] for value in outputs.values()]

    def _empty(self, *sizes: int) -> Tensor:
        return torch.empty(*sizes, self.width, device=self.device)

    def _session(self, layers: tuple[int, ...]) -> Any:
        if layers not in self._sessions:
            path = self._file(layers)
            check_file(path, self._hash)
            self._sessions[layers] = open_session(path, self.provider, self.device)
        return self._sessions[layers]

    def _file(self, layers: tuple[int, ...]) -> Path:
        """The exported file in the cache; it is made if it is not there."""
        depths = "-".join(map(str, layers))
        name = f"{self._hash[:16]}.{depths}.{self.precision}.v{FORMAT}"
        folder = cache_folder() / "onnx" / name
        try:
            reason = closed_folder(folder.parent)
            if os.path.lexists(folder):
                reason = reason or folder_distrust_reason(folder)
                if reason is None:
                    return folder / FILE
                warnings.warn(f"{folder}: {reason}; the model is exported again", stacklevel=4)
                remove_whole(folder)
            self._export(layers, folder)
        except OSError as error:
            raise InputError(
                f"cannot write the exported model to {folder.parent} ({error.strerror}); set"
                " XTREMELY_CACHE to a writable folder"
            ) from error
        return folder / FILE

    def _export(self, layers: tuple[int, ...], folder: Path) -> None:
        """Export into a folder, which appears complete and sealed under its final name."""
        product = Product("hidden states", layers, typed=self._typed)
        reference = Packed(self.folder, self.config, "torch", torch.device("cpu"), "fp32")
        made = temporary_name(folder)
        try:
            export(self.folder, reference, product, self.precision, made)
            seal_folder(made, folder.name)
            try:
                made.rename(folder)
            except OSError:
                if folder_distrust_reason(folder) is not None:
                    raise  # otherwise another process made it in the meantime
        finally:
            shutil.rmtree(made, ignore_errors=True)
