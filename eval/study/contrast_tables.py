"""A study's contrasts as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from xtremely.eval.report.markdown import markdown_table
from xtremely.eval.scoring.intervals import LEVEL
from xtremely.eval.study.contrasts import MIN_SEEDS, RECOVERED
from xtremely.eval.study.paired import POWER

Json = dict[str, Any]


def contrast_lines(analyses: Iterable[Json]) -> Iterator[str]:
    """The effect of intermediate phases, for every grid with contrasts, in narrow tables."""
    for one in analyses:
        yield f"## What the intermediate phase changes: {one['grid']} ({one['model']})\n"
        yield "Differences in points, paired by seed and target language, with intervals from a"
        yield "bootstrap over seeds and families of languages. The smallest difference of interest"
        yield f"is {one['smallest']:g}: a difference is larger or smaller than that, whatever its"
        yield f"sign, or we cannot tell. A statement needs {MIN_SEEDS} seeds and English within"
        yield f"{RECOVERED:g} point of the runs without an intermediate phase. Detectable is a"
        yield f"difference that these seeds find with a probability of {100 * POWER:g} %.\n"
        yield from _analysis(one["all runs"])
        if "runs that learnt" in one:
            yield "Runs that learnt nothing, in the target or in the intermediate phase: "
            yield "; ".join(one["failed"].values()) + ". Without them:\n"
            yield from _analysis(one["runs that learnt"])


def _analysis(about: Json) -> Iterator[str]:
    primary = [one for one in about["contrasts"] if one["primary"]]
    yield "Primary contrasts, intervals and p after Holm's correction on the average over tasks:\n"
    yield from markdown_table(
        [
            *("contrast", "average over", "difference", "level", "p"),
            *("detectable", "seeds", "than of interest"),
        ],
        (
            [one["name"], scope, *_told(difference)]
            for one in primary
            for scope, difference in one["averages"].items()
        ),
    )
    reasons = {
        reason: None
        for one in primary
        for difference in one["averages"].values()
        for reason in difference["reasons"]
    }
    if reasons:
        yield "Why we cannot tell: " + "; ".join(reasons) + ".\n"
    yield "All contrasts on averages over at least two tasks; secondary ones are not corrected and"
    yield f"have intervals of {100 * LEVEL:g} %:\n"
    yield from markdown_table(
        ["contrast", "tasks", "on average", "and retrieval", "recovered tasks only"],
        (
            [
                one["name"],
                str(len(one["averages"]["tasks"]["tasks"])),
                *map(shown, one["averages"].values()),
            ]
            for one in about["contrasts"]
            if one["primary"] or len(one["averages"]["tasks"]["tasks"]) > 1
        ),
    )
    tasks: dict[str, Json] = {}
    for of in about["comparisons"]:
        tasks.setdefault(of["task"], of)  # a task counts once, in the first part that has it
    yield "Means over all tasks that a kind of run was tested on, over the languages that none was"
    yield "trained on:\n"
    yield from markdown_table(
        ["runs", "tasks", "on average", "and retrieval"],
        (
            [
                arm,
                str(sum(arm in of["arms"] and not of["retrieval"] for of in tasks.values())),
                *map(number, means.values()),
            ]
            for arm, means in about["averages"].items()
        ),
    )
    waiting = [one for one in about["comparisons"] if not one["arms"]]
    if waiting:
        names = "; ".join(f"{one['title']}: {one['task']}" for one in waiting)
        yield f"Not run yet: {names}.\n"
    for place, of in enumerate(about["comparisons"]):
        if of in waiting:
            continue
        at = f", layer {of['layer']}" if of["layer"] else ""
        yield f"**{of['title']}: {of['task']}**, {of['metric']}{at}. Rows: runs by their"
        count = len(of["languages"])
        yield f"intermediate phase. The mean is over {count} language{'' if count == 1 else 's'}"
        yield "of the test.\n" if of["retrieval"] else "that no run was trained on.\n"
        each = {one["name"]: one["each"][place] for one in about["contrasts"]}
        yield from markdown_table(
            ["runs", "seeds", "English", "recovered", "mean", "minus en", "minus none"],
            (
                [
                    arm,
                    str(row["seeds"]),
                    number(row["English"]),
                    {True: "yes", False: "no", None: "–"}[row["recovered"]],
                    number(row["zero-shot"]),
                    shown(each.get(f"{arm} - en")),
                    shown(each.get(f"{arm} - none")),
                ]
                for arm, row in of["arms"].items()
            ),
        )


def _told(difference: Json) -> list[str]:
    level = difference["interval"] and difference["interval"]["level"]
    p = difference["p"] if difference["holm"] is None else difference["holm"]
    return [
        interval(difference),
        f"{100 * level:.4g} %" if level else "–",
        "–" if p is None else f"{p:.4f}",
        number(difference["detectable"]),
        str(difference["seeds"]),
        difference["verdict"],
    ]


def shown(difference: Json | None) -> str:
    """A difference with its interval and verdict."""
    if difference is None or difference["value"] is None:
        return "–"
    return f"{interval(difference)}, {difference['verdict']}"


def interval(difference: Json) -> str:
    """A difference with its interval."""
    if difference["value"] is None:
        return "–"
    text = f"{difference['value']:+.1f}"
    if difference["interval"]:
        text += f" ({difference['interval']['low']:+.1f} to {difference['interval']['high']:+.1f})"
    return text


def number(value: float | None) -> str:
    """A score as shown in tables."""
    return "–" if value is None else f"{value:.1f}"
