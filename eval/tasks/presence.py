"""Which data of a task a folder has, without reading it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xtremely.eval.data.readers import Incomplete, Missing
from xtremely.eval.tasks.task import Task
from xtremely.kernels.guard import InputError


@dataclass
class Presence:
    """The data of a task that a folder has.

    Attributes:
        languages: those with data, in the task's order.
        splits: those that a language has, in the task's order.
        files: all files.
        incomplete: those languages and splits whose files are not all there, once for each file
            that is missing.
        unusable: why data cannot be read, once for each reason.
    """

    languages: dict[str, None] = field(default_factory=dict)
    splits: dict[str, None] = field(default_factory=dict)
    files: dict[Path, None] = field(default_factory=dict)
    incomplete: dict[str, Incomplete] = field(default_factory=dict)
    unusable: dict[str, None] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """``here``, ``incomplete``, ``unusable`` or ``missing``."""
        if self.unusable:
            return "unusable"
        return "incomplete" if self.incomplete else "here" if self.files else "missing"

    @property
    def bytes(self) -> int:
        """The size of all files on disk."""
        return sum(path.stat().st_size for path in self.files)


def presence(task: Task, root: Path) -> Presence:
    """What a folder has of a task: any language and split, to evaluate or to train on."""
    found = Presence()
    for split in (*task.splits, *task.more_splits):
        for code in (*task.languages, *task.more_languages, *task.training_languages):
            try:
                files = task.files(root, code, split)
            except Missing:
                continue
            except Incomplete as part:
                found.incomplete.setdefault(part.absent, part)
                continue
            except InputError as fault:
                found.unusable[str(fault)] = None
                continue
            broken = [path for path in files if not path.exists()]
            if broken:
                found.unusable |= {f"{path}: a link to nothing": None for path in broken}
                continue
            found.languages[code] = found.splits[split] = None
            found.files.update(dict.fromkeys(files))
    return found
