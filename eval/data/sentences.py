"""Dividing English paragraphs into sentences, and SQuAD's questions into queries and answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from xtremely.eval.data.examples import Examples, Pool, Queries, Questions
from xtremely.eval.data.squad import occurs_at

# A sentence ends after its stop and closing signs, where white space follows and then a capital, a
# digit or an opening sign. An abbreviation before a name ends one, too.
_END = re.compile(r"""[.!?]["')\]”’]*(?=\s+["'(\[“‘]*[A-Z0-9])""")


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """The sentences of a text: offsets of the first character and of the one after the last."""
    ends = [match.end() for match in _END.finditer(text)]
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        sentence = text[start:end]
        if sentence.strip():
            yield start + len(sentence) - len(sentence.lstrip()), start + len(sentence.rstrip())


def from_squad(read: Callable[[], Examples]) -> Queries:
    """SQuAD's questions, each with the sentence in which its first answer starts.

    A candidate is a sentence before its paragraph, as in ``xquad_r``. Questions whose answer is not
    at its stated offset are left out and counted in the notes.
    """
    data = read()
    assert isinstance(data, Questions)
    spans = [list(sentence_spans(context)) for context in data.contexts]
    ids = [f"en_{n}_{place}" for n, some in enumerate(spans, 1) for place in range(len(some))]
    texts = [
        (context[start:end] + context).replace("\n", "")
        for context, some in zip(data.contexts, spans, strict=True)
        for start, end in some
    ]
    rows = dict(zip(ids, range(len(ids)), strict=True))
    queries: dict[str, tuple[str, int]] = {}
    for question in data.questions:
        context = data.contexts[question.context]
        if not question.answers or not occurs_at(context, question.answers[0], question.starts[0]):
            continue
        start = question.starts[0]
        place = sum(end <= start for _, end in spans[question.context])
        queries[question.id] = question.text, rows[f"en_{question.context + 1}_{place}"]
    needed = [-1] * len(ids)
    for number, (_, row) in enumerate(queries.values()):
        needed[row] = number if needed[row] < 0 else needed[row]
    left_out = len(data.questions) - len(queries)
    return Queries(
        [*queries],
        [text for text, _ in queries.values()],
        [(row,) for _, row in queries.values()],
        Pool(ids, texts, needed),
        {"layout": data.notes["layout"], **({"left_out": left_out} if left_out else {})},
    )
