"""What task heads are made of, and the forms that several families share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """What a head is made of: names of its tensors, without ``.weight`` and ``.bias``.

    Attributes:
        rows: what it looks at: a pooling of each sequence (``cls``, ``mean``), or ``every`` token.
        output: the linear layer to the outputs.
        dense: the dense layer before it, if there is one.
        activation: behind the dense layer, as transformers names it.
        norm: behind the activation.
        eps: the norm's epsilon.
        biased: whether the dense layer and the norm have a bias.
    """

    rows: str
    output: str
    dense: str | None = None
    activation: str | None = None
    norm: str | None = None
    eps: float = 0.0
    biased: tuple[bool, bool] = (True, True)


TOKENS = {
    "token classification": Form("every", "classifier"),
    "question answering": Form("every", "qa_outputs"),
}
POOLED = Form("cls", "classifier", "pooler.dense", "tanh")


def own_dense(activation: str) -> Form:
    """A sequence classification head with a dense layer of its own, not the pooler's."""
    return Form("cls", "classifier.out_proj", "classifier.dense", activation)


def by_kind(sequence: Form, choice: Form | None) -> dict[str, Form]:
    """Kind of a head -> form.

    Args:
        sequence: of sequence classification.
        choice: of multiple choice; None where it has none that is known.
    """
    found = {"sequence classification": sequence, **TOKENS}
    return found if choice is None else {**found, "multiple choice": choice}
