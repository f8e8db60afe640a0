"""``xtremely check``: every check of a model on this machine, and what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from xtremely.engine.config_json import read_config
from xtremely.engine.hub.stack import modules
from xtremely.engine.runtime import Engine
from xtremely.eval.check.backends import Row, check_backends
from xtremely.eval.check.checks import (
    check_head,
    check_layers,
    check_sentence_transformers,
    check_tokens,
    head_kinds,
)
from xtremely.eval.check.exports import check_onnx
from xtremely.eval.check.finding import Finding, first_failure
from xtremely.eval.check.reference import Reference
from xtremely.eval.check.sample import Sample, joined, pairs, part, singles
from xtremely.eval.check.states import states_of
from xtremely.kernels.guard import InputError

# Tokens of the longest sequence on which all backends are compared, and on which ONNX graphs are,
# which pad every sequence to the longest. The layers are compared up to the model's limit.
SHORT, SHORTEST = 256, 64
IN_PAIRS = ("sequence classification", "question answering")  # heads that read pairs of texts


@dataclass(frozen=True)
class Report:
    """Everything that was found.

    Attributes:
        model: how the model's files and conventions were understood: name -> value.
        findings: the checks, in order.
        backends: every backend and precision; their findings are in ``findings``, too.
    """

    model: dict[str, Any]
    findings: list[Finding]
    backends: list[Row]

    @property
    def failure(self) -> Finding | None:
        """The first check that failed."""
        return first_failure(self.findings)

    def document(self) -> dict[str, Any]:
        """The report as a JSON value."""
        rows = [{k: v for k, v in asdict(row).items() if k != "findings"} for row in self.backends]
        return {
            "passed": self.failure is None,
            "model": self.model,
            "findings": [asdict(one) for one in self.findings],
            "backends": rows,
        }


def understood(engine: Engine) -> dict[str, Any]:
    """A model's files and conventions as the engine reads them."""
    backend, read, own = engine.backend, engine.tokenizer, engine.conventions
    single = [int(token) for part in read.single.ids for token in part]
    return {
        "name": engine.name,
        "folder": str(engine.folder),
        "hash": engine.model_hash,
        "model type": str(read_config(engine.folder).get("model_type", "")),
        "encoder": backend.implementation,
        "layers": backend.layers,
        "width": backend.width,
        "longest sequence": backend.max_length,
        "texts are cut at": engine.max_length,
        "vocabulary": read.vocabulary,
        "special tokens": [str(read.backend.id_to_token(token)) for token in single],
        "token types": read.typed,
        "pooling": own.pooling,
        "prompt": own.default_prompt,
        "heads": head_kinds(engine),
        "modules": [module["kind"] for module in modules(engine.folder)],
    }


def check_model(
    model: str,
    device: str = "auto",
    begun: Callable[[str], None] = lambda name: None,
    allow_pickle: bool = False,
) -> Report:
    """Check a model on this machine.

    Args:
        model: its name or folder.
        device: where to compute, see ``Engine.load``.
        begun: called with the name of every check that begins.
        allow_pickle: whether pickled weights may be read.

    Raises:
        InputError: the model cannot be loaded at all.
    """
    begun("the model's files")
    load = partial(Engine.load, model, allow_pickle=allow_pickle)
    engine = load(device=device)
    report = Report(understood(engine), [], [])
    for name, check in _checks(engine, load, report):
        begun(name)
        try:
            report.findings.extend(check())
        except InputError as error:
            report.findings.append(Finding(name, False, remark=str(error)))
    return report


def _checks(
    engine: Engine, load: Callable[..., Engine], report: Report
) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
    """The checks in order, each with its name."""
    most = engine.max_length
    whole = singles(engine, engine.backend.max_length)
    if engine.tokenizer.takes_pairs:
        whole = joined(whole, pairs(engine, min(SHORT, most)))
    states: dict[int, Tensor] = {}
    yield "tokens", lambda: [check_tokens(engine)]
    yield "layers", lambda: _layers(engine, load, whole, states)
    for kind in head_kinds(engine):
        read = pairs if kind in IN_PAIRS else singles
        sample = read(engine, min(SHORT, engine.backend.max_length))
        yield f"head, {kind}", partial(_head, engine, kind, sample)
    yield "sentence-transformers", lambda: [check_sentence_transformers(engine)]
    if states:
        yield "backends", lambda: _backends(engine, load, whole, states, report.backends)
    yield "onnx", lambda: check_onnx(engine, singles(engine, min(SHORTEST, most)))


def _head(engine: Engine, kind: str, sample: Sample) -> list[Finding]:
    return [check_head(engine, kind, sample)]


def _layers(
    engine: Engine, load: Callable[..., Engine], sample: Sample, states: dict[int, Tensor]
) -> Iterator[Finding]:
    """Every layer of the default backend and of torch against padded transformers.

    Args:
        engine: the model on the default backend.
        load: loads it, given a backend and a device.
        sample: the sequences.
        states: receives the states of the reference, by layer.
    """
    backend = engine.backend
    every = range(backend.layers + 1)
    if backend.implementation == "transformers":
        # The layers between may have other numbers of states than there are tokens, as in CANINE.
        states |= states_of(engine, sample.tokens, (0, backend.layers))
        remark = "transformers itself runs this model, so there is nothing to compare"
        yield Finding("layers", None, remark=remark)
        return
    reference = Reference(engine.folder, backend.device, typed=engine.tokenizer.typed)
    states |= reference.states(sample.tokens, every)
    del reference
    yield check_layers(engine, sample, states)
    if backend.name != "torch":
        plain = load(backend="torch", device=str(backend.device))
        yield check_layers(plain, sample, states)


def _backends(
    engine: Engine,
    load: Callable[..., Engine],
    whole: Sample,
    states: dict[int, Tensor],
    rows: list[Row],
) -> Iterator[Finding]:
    """Every backend and precision, on the sequences that are not long; ``rows`` receives them."""
    lengths = whole.tokens.lengths
    few = [number for number, length in enumerate(lengths) if length <= SHORT]
    places = torch.repeat_interleave(torch.from_numpy(lengths <= SHORT), torch.from_numpy(lengths))
    expected = {layer: one[places] for layer, one in states.items()}
    for row in check_backends(load, engine.backend.device, part(whole, few), expected):
        rows.append(row)
        yield from row.findings
