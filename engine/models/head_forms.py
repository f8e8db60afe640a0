"""``Form``: the layers of a task head, and the forms that several families share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """The layers of a head, by the names of their tensors without ``.weight`` and ``.bias``.

    Attributes:
        rows: input of the head: a pooling of each sequence (``cls``, ``mean``), or ``every`` token.
        output: the linear layer to the outputs.
        dense: the dense layer before it, if there is one.
        activation: the activation after the dense layer, as transformers names it.
        norm: the norm after the activation, if there is one.
        eps: the norm's epsilon.
        biased: whether the dense layer and the norm have biases.
        late: whether rows are pooled after the activation instead of before the dense layer.
    """

    rows: str
    output: str
    dense: str | None = None
    activation: str | None = None
    norm: str | None = None
    eps: float = 0.0
    biased: tuple[bool, bool] = (True, True)
    late: bool = False


TOKENS = {
    "token classification": Form("every", "classifier"),
    "question answering": Form("every", "qa_outputs"),
}
POOLED = Form("cls", "classifier", "pooler.dense", "tanh")


def own_dense(activation: str) -> Form:
    """A sequence classification head with a dense layer of its own, not the pooler's."""
    return Form("cls", "classifier.out_proj", "classifier.dense", activation)


def by_kind(sequence: Form, choice: Form | None) -> dict[str, Form]:
    """The forms of a model type's heads: kind of head -> form.

    Args:
        sequence: form of sequence classification.
        choice: form of multiple choice; None if it is not known.
    """
    found = {"sequence classification": sequence, **TOKENS}
    return found if choice is None else {**found, "multiple choice": choice}
