"""Repeated shapes are recorded once and replayed; other shapes run as they are."""

import numpy as np
import pytest
import torch

from xtremely.engine.models import cuda_graphs
from xtremely.engine.models.cuda_graphs import Graphs
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import collate, plan
from xtremely.engine.text.tokenizer import Tokens


def batch_of(*lengths, fill=5):
    total = sum(lengths)
    borders = np.cumsum([0, *lengths])
    tokens = Tokens(
        np.full(total, fill, dtype=np.int32), np.zeros(total, dtype=np.int8), borders, 0
    )
    return collate(tokens, np.arange(len(lengths)))


class Log:
    """A forward pass and a recorder that write down when they are used."""

    def __init__(self):
        self.lines = []

    def forward(self, batch, layers):
        self.lines.append("forward")
        return {layer: batch.input_ids * layer for layer in layers}

    def record(self, forward, batch, layers):
        self.lines.append("record")

        def replay(other):
            self.lines.append("replay")
            return {layer: other.input_ids * layer for layer in layers}

        return replay


def test_a_shape_is_recorded_when_it_comes_again_and_replayed_with_its_own_tokens():
    log = Log()
    run = Graphs(log.forward, log.record)
    for fill in (5, 6, 7):
        states = run(batch_of(3, 2, fill=fill), [1, 2])
        assert torch.equal(states[2], torch.full((5,), 2 * fill))
    assert log.lines == ["forward", "record", "replay", "replay"]


def test_other_lengths_and_other_layers_are_other_shapes():
    log = Log()
    run = Graphs(log.forward, log.record)
    run(batch_of(3, 2), [1])
    run(batch_of(2, 3), [1])
    run(batch_of(3, 2), [2])
    assert log.lines == ["forward"] * 3


def test_the_least_recently_used_shape_is_let_go(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 2)
    log = Log()
    run = Graphs(log.forward, log.record)
    for length in (1, 2, 1, 3, 1, 2):
        run(batch_of(length), [1])
    assert log.lines == ["forward", "forward", "record", "replay", "forward", "replay", "forward"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_replayed_graph_gives_the_bits_of_the_pass_it_recorded(make_tiny, sentences):
    folder = make_tiny("bert", hidden_size=64, num_attention_heads=2, num_hidden_layers=2)
    engine = Engine.load(str(folder), backend="triton", device="cuda", precision="fp16")
    tokens = engine.tokenizer(sentences[:8])
    batch = collate(tokens, plan(tokens.lengths, 10_000)[0]).to(engine.backend.device)
    run, forward = Graphs(engine.backend.forward), engine.backend.forward
    direct = forward(batch, [0, 2])
    for _ in range(3):
        again = run(batch, [0, 2])
        assert all(torch.equal(again[layer], direct[layer]) for layer in direct)
