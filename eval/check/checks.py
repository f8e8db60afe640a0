"""The checks of one engine: tokens, hidden states, heads, vectors, company in a batch.

Each is a function from an engine and a sample to a ``Finding``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.config_json import about, read_config
from xtremely.engine.foreign import foreign
from xtremely.engine.hub.stack import modules
from xtremely.engine.models.heads import HEAD_KINDS
from xtremely.engine.models.loading import quiet
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokens
from xtremely.engine.text.vocabulary import load_tokenizer
from xtremely.engine.transfer import Finish, to_host
from xtremely.eval.check.finding import Finding, Place
from xtremely.eval.check.reference import Reference
from xtremely.eval.check.sample import Sample, lines, part
from xtremely.eval.check.states import LIMITS, compare, differences, rows_of, states_of
from xtremely.eval.methods.method import sequences
from xtremely.kernels.guard import InputError

# Backends whose every sum has a fixed order. The products of the others belong to libraries, which
# choose an algorithm by the number of rows; there, company may change the rounding.
SAME_BITS = ("native", "triton")
COMPANY = 20  # sequences that are run alone


def check_tokens(engine: Engine) -> Finding:
    """Token ids and types of single texts and pairs, cut at the limit, against transformers'.

    Every id counts, so the limit is 0 differing tokens.
    """
    read, limit = engine.tokenizer, min(engine.max_length, 64)
    own = load_tokenizer(engine.folder)
    texts = [*lines(), " ".join(lines())]
    first_texts, second_texts = texts[:-1], texts[1:]
    calls: list[tuple[Tokens, tuple[list[str], ...]]] = [(read(texts, limit), (texts,))]
    if read.takes_pairs:
        found_pairs = read.pairs(first_texts, second_texts, limit)
        calls.append((found_pairs, (first_texts, second_texts)))
    wrong = 0
    first: tuple[Place, str] | None = None
    for ours, given in calls:
        with foreign(f"{engine.folder}: transformers' tokenizer cannot read the texts"):
            theirs = own(*given, truncation=True, max_length=limit, padding=False)
        types = theirs.get("token_type_ids") if read.typed else None
        for number, (ids, kinds) in enumerate(sequences(ours)):
            expected = list(
                zip(theirs["input_ids"][number], types[number] if types else kinds, strict=False)
            )
            found = list(zip(ids.tolist(), kinds.tolist(), strict=True))
            if found == [(int(a), int(b)) for a, b in expected]:
                continue
            wrong += 1
            if first is None:
                first = _token_place(found, expected, given, number, own)
    if first is None:
        return Finding("tokens", True, 0, 0, remark=f"{len(texts) + len(first_texts)} sequences")
    return Finding("tokens", False, wrong, 0, *first)


def _token_place(
    found: list, expected: list, given: tuple[list[str], ...], number: int, own: Any
) -> tuple[Place, str]:
    """The first differing token of a sequence, and what it should be."""
    same = [a == b for a, b in zip(found, expected, strict=False)]
    token = same.index(False) if False in same else len(same)
    spelled = [
        str(own.convert_ids_to_tokens(int(one[token][0]))) if token < len(one) else "nothing"
        for one in (found, expected)
    ]
    text = " / ".join(texts[number] for texts in given)
    place = Place(text, number + 1, token, spelled[0])
    return place, f"transformers' tokenizer has {spelled[1]!r} there"


def check_layers(engine: Engine, sample: Sample, expected: Mapping[int, Tensor]) -> Finding:
    """Every hidden state against padded transformers'; see ``states.LIMITS``."""
    backend = engine.backend
    name = f"layers, {backend.name} {backend.precision}"
    found = states_of(engine, sample.tokens, range(backend.layers + 1))
    return compare(name, found, expected, sample, backend.precision)


def check_states(engine: Engine, sample: Sample, expected: Mapping[int, Tensor]) -> Finding:
    """The first and the last hidden state against padded transformers'.

    Args:
        engine: the model on any backend, in any precision.
        sample: the sequences.
        expected: layer -> states, of transformers in fp32; the first and the last at least.

    Returns:
        A failure is located in all layers that are expected.
    """
    backend, last = engine.backend, engine.backend.layers
    name = f"states, {backend.name} {backend.precision}"

    def compared(layers: Collection[int]) -> Finding:
        there = [layer for layer in layers if layer in expected]
        found = states_of(engine, sample.tokens, there)
        return compare(name, found, expected, sample, backend.precision)

    return _located(compared, (0, last), last)


def check_company(engine: Engine, sample: Sample) -> Finding:
    """The last hidden states of sequences alone and in one batch with all others.

    The backends of ``SAME_BITS`` must give equal bits, the others differ by rounding at most.
    """
    backend, last = engine.backend, engine.backend.layers
    name = f"company, {backend.name} {backend.precision}"
    few = part(sample, list(range(min(COMPANY, len(sample.tokens)))))
    alone = [part(few, [number]).tokens for number in range(len(few.tokens))]

    def compared(layers: Collection[int]) -> Finding:
        together = states_of(engine, few.tokens, layers)
        parts = [states_of(engine, one, layers) for one in alone]
        single = {layer: torch.cat([one[layer] for one in parts]) for layer in layers}
        for layer in sorted(layers):
            differing = (together[layer] != single[layer]).any(dim=1).nonzero()
            if len(differing) and backend.name in SAME_BITS:
                row = int(differing[0])
                apart = float((together[layer] - single[layer]).abs().max())
                return Finding(
                    name, False, apart, 0, few.place(row, layer), "the company changes bits"
                )
        return compare(name, together, single, few, backend.precision)

    finding = _located(compared, (last,), last)
    if finding.passed:
        finding = replace(finding, remark="rounding" if finding.figure else "equal bits")
    return finding


def _located(
    compared: Callable[[Collection[int]], Finding], layers: Collection[int], last: int
) -> Finding:
    """What comparing some layers gives; a failure is located by comparing all of them."""
    finding = compared(layers)
    if finding.passed:
        return finding
    located = compared(range(last + 1))
    return finding if located.passed else located


def head_kinds(engine: Engine) -> list[str]:
    """The kinds of head that the folder's config.json declares."""
    named = about(read_config(engine.folder), engine.folder).architectures or ()
    return [
        kind
        for kind, suffix in HEAD_KINDS.items()
        if any(architecture.endswith(suffix) for architecture in named)
    ]


def check_head(engine: Engine, kind: str, sample: Sample) -> Finding:
    """A head's outputs against transformers', label by label.

    Outputs are matched by the names of their labels, so a swapped order shows. The limit is that of
    hidden states.
    """
    name = f"head, {kind}"
    try:
        head = engine.head(kind, None)
    except InputError as error:
        return Finding(name, None, remark=str(error))
    auto = f"AutoModel{HEAD_KINDS[kind]}"
    reference = Reference(engine.folder, engine.backend.device, auto, engine.tokenizer.typed)
    expected = reference.outputs(sample.tokens, kind)
    token_wise = head.rows == "every"
    rows = len(sample.tokens.ids) if token_wise else len(sample.tokens)
    found = torch.empty(rows, expected.shape[1])

    def take(outputs: Tensor, batch: Batch) -> Finish:
        place = rows_of(sample.tokens, batch) if token_wise else batch.order
        copied = to_host(outputs)

        def finish() -> None:
            found[place] = copied()

        return finish

    engine.predict(head, sample.tokens, take)
    limit = LIMITS[engine.backend.precision]
    if head.labels:
        named = reference.model.config.id2label
        theirs = [str(named[number]) for number in range(expected.shape[1])]
        if sorted(theirs) != sorted(head.labels):
            remark = f"labels {', '.join(head.labels)}, transformers has {', '.join(theirs)}"
            return Finding(name, False, remark=remark)
        expected = expected[:, [theirs.index(label) for label in head.labels]]
    apart = differences(found, expected)
    above = torch.nonzero(apart > limit)
    row = int(above[0]) if len(above) else int(apart.argmax())
    place = sample.place(row) if token_wise else Place(sample.texts[row], row + 1)
    remark = ""
    if len(above) and head.labels:
        worst = int((found - expected)[row].abs().argmax())
        remark = f"the output for label {head.labels[worst]!r} differs most"
    return Finding(name, not len(above), float(apart.max()), limit, place, remark)


def check_sentence_transformers(engine: Engine) -> Finding:
    """Sentence vectors against those of sentence-transformers, where the folder is one of its own.

    Both get the prompt that sentence-transformers takes by default. Vectors are scaled to length 1,
    as every score here does. The limit is that of hidden states.
    """
    name, folder = "sentence-transformers", engine.folder
    if not modules(folder):
        return Finding(name, None, remark="the folder has no modules.json")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return Finding(name, None, remark="not installed: pip install sentence-transformers")
    with foreign(f"{folder}: sentence-transformers cannot run it"), quiet():
        theirs = SentenceTransformer(
            str(folder), device=str(engine.backend.device), local_files_only=True
        )
        prompt = theirs.prompts.get(theirs.default_prompt_name or "", "")
        texts = [*lines(), " ".join(lines() * 12)]  # the last is longer than most limits
        expected = theirs.encode(texts, normalize_embeddings=True, convert_to_numpy=True)
    found = engine.embed(texts, prompt=prompt)
    limit = LIMITS[engine.backend.precision]
    if found.shape != expected.shape:
        remark = f"vectors of {found.shape[1]} numbers, sentence-transformers' have"
        return Finding(
            name,
            False,
            limit=limit,
            where=Place(texts[0], 1),
            remark=f"{remark} {expected.shape[1]}",
        )
    apart = differences(torch.from_numpy(found), torch.from_numpy(np.asarray(expected)))
    above = torch.nonzero(apart > limit)
    row = int(above[0]) if len(above) else int(apart.argmax())
    kinds = ", ".join(module["kind"] for module in modules(folder))
    return Finding(
        name, not len(above), float(apart.max()), limit, Place(texts[row], row + 1), kinds
    )
