"""CUDA graphs of forward passes: one launch for the whole encoder when a batch shape recurs.

The shape of a packed batch is the lengths of its sequences. Shapes recur with the full windows of
long texts, and with the same texts under another checkpoint. Small models then no longer wait for
Python to launch their kernels one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from xtremely.engine.text.batch import Batch

States = dict[int, Tensor]
Forward = Callable[[Batch, Collection[int]], States]
MAX_GRAPHS = 16  # shapes kept; the least recently used is dropped first


class Graphs:
    """A forward pass that is recorded when a shape occurs the second time, then replayed.

    Args:
        forward: (batch, layers) -> hidden states; runs on the current stream.
        record: (forward, batch, layers) -> a function with the same results for batches of this
            shape; by default the replay of a CUDA graph.
    """

    def __init__(
        self,
        forward: Forward,
        record: Callable[[Forward, Batch, Collection[int]], Callable[[Batch], States]]
        | None = None,
    ):
        self.forward = forward
        self.record = record or _Recorder()
        self._kept: OrderedDict[tuple, Callable[[Batch], States] | None] = OrderedDict()

    def __call__(self, batch: Batch, layers: Collection[int]) -> States:
        """The requested hidden states, each [T, H]; later calls do not overwrite them."""
        shape = (batch.layout.lengths, tuple(sorted(layers)))
        seen, replay = shape in self._kept, self._kept.get(shape)
        if seen and replay is None:
            replay = self.record(self.forward, batch, layers)
        self._kept[shape] = replay
        self._kept.move_to_end(shape)
        if len(self._kept) > MAX_GRAPHS:
            self._kept.popitem(last=False)
        return replay(batch) if replay else self.forward(batch, layers)


class _Recorder:
    """Records CUDA graphs that share one memory pool, as no two of them run at the same time."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(
        self, forward: Forward, batch: Batch, layers: Collection[int]
    ) -> Callable[[Batch], States]:
        forward(batch, layers)  # compiles missing kernels, which is not allowed while recording
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool):
                states = forward(batch, layers)
        except RuntimeError:  # such as out of memory: launch this shape kernel by kernel
            torch.cuda.synchronize()
            return lambda other: forward(other, layers)

        def replay(other: Batch) -> States:
            for name in ("input_ids", "position_ids", "type_ids"):
                getattr(batch, name).copy_(getattr(other, name), non_blocking=True)
            graph.replay()
            return {layer: state.clone() for layer, state in states.items()}

        return replay
