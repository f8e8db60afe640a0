"""Training tasks of natural language inference; all share XNLI's head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import make_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import TextPairs
from xtremely.eval.data.languages import codes
from xtremely.eval.data.pairs import Row, table_rows, text_pairs
from xtremely.eval.data.readers import Missing
from xtremely.eval.data.tables import Table
from xtremely.eval.tasks.task import LabelRules, Task
from xtremely.kernels.guard import require

LABELS = ("contradiction", "entailment", "neutral")  # in XNLI's order
UNDECIDED = "-"  # the label of a pair on which the annotators disagreed

Layouts = Sequence[Sequence[Path]]


def nli_task(
    name: str,
    title: str,
    language: str,
    layouts: Callable[[Path, str], Layouts],
    read: Callable[[list[Path]], TextPairs],
    splits: tuple[str, ...],
    licence: str,
    source: str,
    layout_names: tuple[str, ...],
    on_hub: hub.HubSource,
) -> Task:
    """A task in one language.

    Args:
        name: name of the task.
        title: one line that describes it.
        language: its code.
        layouts: (root, split) -> alternative groups of files; the files of a group are read
            together.
        read: function from the files of one group to text pairs.
        splits: the splits to train on.
        licence: of the data.
        source: where the data comes from.
        layout_names: the layouts, as shown to users.
        on_hub: where it is on the hub: premise, hypothesis, and the class of their label.
    """

    def find(root: Path, code: str, split: str) -> Callable[[], TextPairs]:
        if code != language:
            raise Missing(name, code, [f"{name} has {language} alone"])
        table = hub.find(name, code, root, on_hub, split)
        if table:
            return partial(_from_hub, table)
        _, files = readers.locate(name, code, layouts(root, split))
        return partial(read, files)

    return Task(
        name=name,
        title=title,
        kind="pair",
        languages=codes(language),
        find=find,
        splits=(),
        metric="accuracy",
        rules=LabelRules(LABELS),
        benchmark="none: to train on",
        licence=licence,
        source=source,
        layouts=layout_names,
        hub=on_hub,
        checkpoint="xnli",
        more_splits=splits,
        max_length=128,
    )


def _from_hub(table: Table) -> TextPairs:
    """A table's pairs; a label that is hidden there is one on which the annotators disagreed."""
    rows = [(where, [*texts, label or UNDECIDED]) for where, (*texts, label) in table_rows(table)]
    return decided(rows)


def decided(rows: Sequence[Row], renamed: Mapping[str, str] | None = None) -> TextPairs:
    """Pairs on which the annotators agreed; the others are counted in the notes."""
    kept = [row for row in rows if row[1][2] != UNDECIDED]
    require(bool(kept), f"{rows[0][0] if rows else 'the file'}: no pair has a label")
    notes = {"undecided": len(rows) - len(kept)} if len(kept) < len(rows) else {}
    return text_pairs(kept, LABELS, renamed, **notes)


def json_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Three text columns of a file with one JSON object per line."""
    schema: Any = make_dataclass("Row", [(name, str) for name in columns], slots=True)
    return [
        (f"{path}:{number}", [getattr(row, name) for name in columns])
        for number, row in enumerate(readers.read_json_lines(path, schema), start=1)
    ]
