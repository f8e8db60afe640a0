"""The quick check before an evaluation: some texts through the engine and padded transformers.

The import of transformers' models takes most of its time. Loading and computing are estimated from
the sizes of the model, and the texts are chosen to fit into ``SECONDS``. LOG has measurements.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from xtremely.engine.models.tensor_files import TensorFiles
from xtremely.engine.runtime import Engine
from xtremely.eval.check.reference import Reference
from xtremely.eval.check.sample import LANGUAGES, Sample, part, singles
from xtremely.eval.check.states import compare, states_of
from xtremely.kernels.guard import require

# Seconds for loading and computing. Two slow cores map fp32 weights (only those that are read), or
# convert others to fp32, and both encoders compute, at these rates a second.
SECONDS = 0.7
MAPPED, CONVERTED = 1e9, 3e8  # weights
OPERATIONS = {"cpu": 3e10, "cuda": 1e13}
LONGEST, LEAST = 100, 2  # tokens of the longest text, number of texts


@dataclass(frozen=True)
class Verdict:
    """The result of a quick check, as records hold it.

    Attributes:
        result: ``passed``, ``left out`` or ``not run``.
        reason: why it was left out; empty otherwise.
        difference: the largest difference, see ``states``; None if nothing was compared.
        limit: the largest difference that passes.
        texts: number of texts.
        layers: the hidden states that were compared.
    """

    result: str
    reason: str = ""
    difference: float | None = None
    limit: float | None = None
    texts: int = 0
    layers: tuple[int, ...] = ()


NOT_RUN = Verdict("not run")


def quick_check(engine: Engine, layers: Collection[int]) -> Verdict:
    """Compare an engine with padded transformers in fp32, on the same device.

    Args:
        engine: the model as it is going to be used.
        layers: the hidden states that are going to be used.

    Raises:
        InputError: they differ, or transformers cannot run the model.
    """
    if engine.backend.implementation == "transformers":
        return Verdict("left out", "transformers itself runs this model")
    sample = _affordable(engine)
    if sample is None:
        return Verdict("left out", "the model is too large for a quick check")
    wanted = sorted({*layers})
    reference = Reference(engine.folder, engine.backend.device, typed=engine.tokenizer.typed)
    expected = reference.states(sample.tokens, wanted)
    del reference
    found = states_of(engine, sample.tokens, wanted)
    name = f"the model on {engine.backend.name} in {engine.backend.precision}"
    finding = compare(name, found, expected, sample, engine.backend.precision)
    require(bool(finding.passed), f"{finding}: it does not compute what transformers computes")
    figure = float(f"{finding.figure:.1e}")
    return Verdict("passed", "", figure, finding.limit, len(sample.texts), tuple(wanted))


def _affordable(engine: Engine) -> Sample | None:
    """As many texts as ``SECONDS`` allow, of several lengths and languages; None if too few."""
    backend = engine.backend
    weights = 12 * backend.layers * backend.width**2
    others = [one for one in TensorFiles(engine.folder).stored.values() if one.dtype != "F32"]
    left = SECONDS - weights / MAPPED - sum(one.values for one in others) / CONVERTED
    budget = left * OPERATIONS[backend.device.type] / (2 * 2 * weights)
    every = singles(engine, min(LONGEST, engine.max_length))
    sentences, cuts = range(len(LANGUAGES)), range(len(LANGUAGES), len(every.texts))
    chosen: list[int] = []
    for number in (cuts[0], cuts[len(cuts) // 4], *sentences[:2], cuts[-1], *sentences[2:]):
        if budget >= every.tokens.lengths[number]:
            budget -= every.tokens.lengths[number]
            chosen.append(number)
    return part(every, chosen) if len(chosen) >= LEAST else None
