"""The benchmarks: their tasks in groups, and how their averages are taken.

A task's score is the mean over its languages, a group's the mean over its tasks, and the overall
score the mean over all tasks, each once.
"""

from __future__ import annotations

from dataclasses import dataclass

from xtremely.eval.tasks.task import Task
from xtremely.kernels.guard import unknown


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: as in its paper.
        option: its name on the command line.
        groups: name of a group -> names of its tasks.
        all_languages: whether the languages that XTREME-R added to XTREME's tasks count.
    """

    name: str
    option: str
    groups: dict[str, tuple[str, ...]]
    all_languages: bool

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of all tasks, in order."""
        return tuple(task for members in self.groups.values() for task in members)

    def languages(self, task: Task) -> tuple[str, ...]:
        """The languages over which a task's mean is taken."""
        return (*task.languages, *task.more_languages) if self.all_languages else task.languages


XTREME = Benchmark(
    "XTREME",
    "xtreme",
    {
        "classification": ("xnli", "pawsx"),
        "tagging": ("udpos", "panx"),
        "qa": ("xquad", "mlqa", "tydiqa"),
        "retrieval": ("bucc2018", "tatoeba"),
    },
    all_languages=False,
)
# The groups of its paper. Its script leaves LAReQA out, for which it has no file format.
XTREME_R = Benchmark(
    "XTREME-R",
    "xtreme-r",
    {
        "classification": ("xnli", "xcopa"),
        "tagging": ("udpos", "panx"),
        "qa": ("xquad", "mlqa", "tydiqa"),
        "retrieval": ("tatoeba", "mewslix", "lareqa"),
    },
    all_languages=True,
)
BENCHMARKS = (XTREME, XTREME_R)


def find_benchmark(option: str) -> Benchmark:
    """A benchmark by its name on the command line.

    Raises:
        UsageError: there is none.
    """
    by_option = {one.option: one for one in BENCHMARKS}
    if option not in by_option:
        raise unknown("benchmark", option, by_option)
    return by_option[option]
