"""A study's answer: a picture, a paragraph and a table of its primary contrasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from xtremely.eval.report.markdown import markdown_table
from xtremely.eval.study.contrast_tables import interval, number
from xtremely.eval.study.contrasts import MIN_SEEDS, NOT_RECOVERED
from xtremely.eval.study.figures import source_name
from xtremely.eval.study.grid import UNTRAINED

Json = dict[str, Any]

COLOURS = ("#0a7d5a", "#3b7dd8", "#d9742b", "#8a63d2")  # of the contrasts, in turn
WIDTH, LABEL, AXIS, ROW, GAP = 960, 460, 240, 18, 14  # pixels; LABEL is where the axis begins
NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'


def arm_name(source: str) -> str:
    """The name of a kind of run by its intermediate phase."""
    return "no intermediate phase" if source == UNTRAINED else source_name(source)


def sides(contrast: Json) -> list[str]:
    """The names of a contrast's two kinds of runs."""
    return [arm_name(source) for source in contrast["name"].split(" - ")]


def primary(about: Json) -> list[Json]:
    """The primary contrasts of an analysis, as in its ``all runs``."""
    return [one for one in about["contrasts"] if one["primary"]]


def begun(analysis: Json) -> bool:
    """Whether any primary contrast has both of its sides in at least one test."""
    return any(
        difference["value"] is not None
        for contrast in primary(analysis["all runs"])
        for difference in contrast["each"]
    )


def rows(
    about: Json, contrasts: Sequence[Json]
) -> list[tuple[str, list[tuple[str, list[Json], Json | None]]]]:
    """The rows of an answer by group: target tasks first, then retrieval.

    Args:
        about: an analysis of ``contrasts``, such as its ``all runs``.
        contrasts: those of its contrasts that are shown.

    Returns:
        For each group its title and rows: a row's title, the difference of every contrast, and the
        comparison that they come from; None for an average.
    """
    compared = about["comparisons"]
    tasks = [one["task"] for one in compared]

    def average(scope: str) -> list[Json]:
        return [contrast["averages"][scope] for contrast in contrasts]

    def each(retrieval: bool) -> Iterator[tuple[str, list[Json], Json | None]]:
        for place, one in enumerate(compared):
            if one["retrieval"] is retrieval:
                several = tasks.count(one["task"]) > 1
                title = f"{one['task']} ({one['title']})" if several else one["task"]
                yield title, [contrast["each"][place] for contrast in contrasts], one

    def title(differences: list[Json]) -> str:
        counts = {len(one["tasks"]) for one in differences}
        every = {len(one["tasks"]) + len(one["left out"]) for one in differences}
        return f"average of {_listed(counts)} of {_listed(every)}"

    whole, both = average("tasks"), average("tasks and retrieval")
    trained: list[tuple[str, list[Json], Json | None]] = [(f"{title(whole)} tasks", whole, None)]
    if any(map(_partly_recovered, contrasts)):
        recovered = average("recovered tasks")
        counts = {len(one["tasks"]) for one in recovered}
        trained.append((f"average of the {_listed(counts)} recovered tasks", recovered, None))
    trained += each(False)
    matched = [*each(True)]
    if matched:
        matched.append((f"{title(both)}, with retrieval", both, None))
    groups = [("After the target task", trained), ("After the intermediate phase", matched)]
    return [(title, found) for title, found in groups if found]


def _partly_recovered(contrast: Json) -> bool:
    """Whether English scores have recovered in some of a contrast's tasks, and not in others."""
    averages = contrast["averages"]
    return 0 < len(averages["recovered tasks"]["tasks"]) < len(averages["tasks"]["tasks"])


def _listed(counts: set[int]) -> str:
    return " or ".join(map(str, sorted(counts)))


def difference_text(difference: Json, smallest: float) -> str:
    """A difference with its interval and what it says about the smallest one of interest."""
    if difference["value"] is None:
        return "not run yet"
    if difference["interval"] is None:
        return f"{interval(difference)}, too few seeds ({difference['seeds']})"
    return f"{interval(difference)}, {judged(difference, smallest)}"


def judged(difference: Json, smallest: float) -> str:
    """A verdict in words, with its direction."""
    if difference["verdict"] == "larger":
        return f"more than {smallest:g} {'better' if difference['value'] > 0 else 'worse'}"
    if difference["verdict"] == "smaller":
        return f"less than {smallest:g} either way"
    few = difference["seeds"] < MIN_SEEDS
    return f"too few seeds ({difference['seeds']})" if few else "cannot tell"


def state(analysis: Json) -> str:
    """How much of a study is finished, as a sentence."""
    averages = [one["averages"]["tasks"] for one in primary(analysis["all runs"])]
    counts = {one["seeds"] for one in averages}
    enough = min(counts) >= MIN_SEEDS and not any(one["left out"] for one in averages)
    return (
        f"{analysis['finished']} of {analysis['cells']} cells are finished. The primary contrasts"
        f" have {_listed(counts)} seed{'' if counts == {1} else 's'}"
        f"{'' if enough else f' so far; a statement needs {MIN_SEEDS}'} in every task."
    )


def answer_lines(analyses: Sequence[Json]) -> Iterator[str]:
    """The answer as Markdown: for every study a paragraph, and a table of tests by contrasts.

    Args:
        analyses: as from ``contrasts``.
    """
    for analysis in analyses:
        about, smallest = analysis["all runs"], analysis["smallest"]
        contrasts = primary(about)
        decided = all(one["averages"]["tasks"]["verdict"] != "cannot tell" for one in contrasts)
        yield f"**{analysis['title']}: {'decided' if decided else 'not decided'}.**"
        yield state(analysis)
        for contrast in contrasts:
            yield _sentence(contrast, smallest)
        yield from _where_recovered(contrasts, smallest)
        if "runs that learnt" in analysis:
            count = len(analysis["failed"])
            yield f"{count} run{'s' if count > 1 else ''} learnt nothing. Without them:"
            for contrast in primary(analysis["runs that learnt"]):
                yield _sentence(contrast, smallest)
        yield ""
        yield from _table(about, smallest)


def _sentence(contrast: Json, smallest: float) -> str:
    one, other = sides(contrast)
    whole = contrast["averages"]["tasks"]
    if whole["value"] is None:
        return f"{one} instead of {other}: not run yet."
    count, every = len(whole["tasks"]), len(whole["tasks"]) + len(whole["left out"])
    over = f"on average over {count} of {every} tasks"
    return f"{one} instead of {other}: {difference_text(whole, smallest)} ({over})."


def _where_recovered(contrasts: Sequence[Json], smallest: float) -> Iterator[str]:
    """Which tasks keep the average from a verdict, and the contrasts on the others."""
    some = [one for one in contrasts if _partly_recovered(one)]
    if not some:
        return
    reasons = dict.fromkeys(
        reason
        for contrast in some
        for reason in contrast["averages"]["tasks"]["reasons"]
        if reason.startswith(NOT_RECOVERED)
    )
    yield f"{'; '.join(reasons)}. On the other tasks (95 %, not corrected):"
    for contrast in some:
        found = contrast["averages"]["recovered tasks"]
        tasks = ", ".join(task.rpartition(": ")[2] for task in found["tasks"])
        told = difference_text(found, smallest)
        yield f"{' instead of '.join(sides(contrast))}: {told} ({tasks})."


def _table(about: Json, smallest: float) -> Iterator[str]:
    """A row for every test: the reference's scores, the contrasts, what the phase itself did."""
    reference = primary(about)[0]["name"].split(" - ")[1]
    itself = f"{reference} - {UNTRAINED}"
    last = [one for one in about["contrasts"] if one["name"] == itself and not one["primary"]]
    yield "Differences are in points. The two columns of scores are of the runs with"
    yield f"{arm_name(reference)}: on English test data, and the mean over other languages.\n"
    yield from markdown_table(
        [
            *("test", "in English", "mean elsewhere"),
            *(" − ".join(sides(one)) for one in (*primary(about), *last)),
        ],
        (
            [
                title,
                *_levels(comparison, reference),
                *(difference_text(difference, smallest) for difference in differences),
            ]
            for _, group in rows(about, [*primary(about), *last])
            for title, differences, comparison in group
        ),
    )


def _levels(comparison: Json | None, arm: str) -> list[str]:
    row = (comparison or {"arms": {}})["arms"].get(arm)
    return [number(row[key]) if row else "–" for key in ("English", "zero-shot")]


def answer_picture(analyses: Sequence[Json], alone: bool = True) -> str:
    """The answer as an SVG image: differences with intervals, by test and on average.

    Args:
        analyses: as from ``contrasts``.
        alone: whether the image is a file of its own, not a part of an HTML page.
    """
    parts: list[str] = []
    y = 20
    for analysis in analyses:
        drawn, y = _study(analysis, y)
        parts += drawn
    inside = "\n".join(parts)
    return (
        f'<svg{NAMESPACE if alone else ""} viewBox="0 0 {WIDTH} {y}" width="{WIDTH}"'
        ' font-family="sans-serif" font-size="13" role="img">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{inside}\n</svg>\n'
    )


def _study(analysis: Json, y: int) -> tuple[list[str], int]:
    """One study's part of the picture, and where the next one begins."""
    smallest = analysis["smallest"]
    title = (
        f"{analysis['title']}: difference in points; shaded: too small to matter (±{smallest:g})"
    )
    parts = [_text(8, y, title, 'font-weight="bold"')]
    y += ROW
    parts.append(_text(8, y, state(analysis), 'fill="#555"'))
    y += ROW
    contrasts = primary(analysis["all runs"])
    for group, found in rows(analysis["all runs"], contrasts):
        ends = [end for _, many, _ in found for one in many for end in _ends(one)]
        extent = 1.1 * max([2 * smallest, *map(abs, ends)])
        parts += _axis(group, y + ROW, smallest, extent, _height(found))
        y += 2 * ROW
        for title, differences, _ in found:
            parts.append(_text(8, y + ROW, title))
            if all(one["value"] is None for one in differences):
                y += ROW
                parts.append(_text(LABEL + AXIS + GAP, y, "not run yet", 'fill="#555"'))
                continue
            for place, (contrast, one) in enumerate(zip(contrasts, differences, strict=True)):
                y += ROW
                colour = COLOURS[place % len(COLOURS)]
                label = " − ".join(sides(contrast))
                parts.append(_text(LABEL - GAP, y, label, f'text-anchor="end" fill="{colour}"'))
                parts += _mark(one, y, extent, colour)
                parts.append(_text(LABEL + AXIS + GAP, y, difference_text(one, smallest)))
            y += 6
        y += ROW
    return parts, y


def _height(found: Sequence[tuple[str, list[Json], Json | None]]) -> int:
    return sum(
        ROW * len(many) + 6 if any(one["value"] is not None for one in many) else ROW
        for _, many, _ in found
    )


def _place(points: float, extent: float) -> str:
    return f"{LABEL + AXIS / 2 * (1 + points / extent):.1f}"


def _axis(group: str, y: int, smallest: float, extent: float, height: int) -> list[str]:
    """A group's title, its scale, the band of small differences, and the line at zero."""
    left, right = _place(-smallest, extent), _place(smallest, extent)
    width = float(right) - float(left)
    top, zero = y + 6, _place(0, extent)
    return [
        _text(8, y, group, 'font-weight="bold"'),
        _text(LABEL, y, f"−{extent:.1f}", 'fill="#555"'),
        _text(zero, y, "0", 'fill="#555" text-anchor="middle"'),
        _text(LABEL + AXIS, y, f"+{extent:.1f}", 'fill="#555" text-anchor="end"'),
        f'<rect x="{left}" y="{top}" width="{width:.1f}" height="{height + 8}" fill="#e6e8eb"/>',
        f'<line x1="{zero}" x2="{zero}" y1="{top}" y2="{top + height + 8}" stroke="#888"'
        ' stroke-dasharray="3 3"/>',
    ]


def _mark(difference: Json, y: int, extent: float, colour: str) -> list[str]:
    """A dot with its interval; an open dot where there is none."""
    if difference["value"] is None:
        return []
    low, high = (_place(end, extent) for end in _ends(difference))
    at, there = _place(difference["value"], extent), difference["interval"] is not None
    dot = f'<circle cx="{at}" cy="{y - 5}" r="5" stroke="{colour}" stroke-width="2"'
    line = f'<line x1="{low}" x2="{high}" y1="{y - 5}" y2="{y - 5}" stroke="{colour}"'
    return [
        *([f'{line} stroke-width="3"/>'] if there else []),
        f'{dot} fill="{colour if there else "white"}"/>',
    ]


def _ends(difference: Json) -> list[float]:
    """The ends of a difference's interval; its value if it has no interval, none without one."""
    around, value = difference["interval"], difference["value"]
    if around:
        return [around["low"], around["high"]]
    return [] if value is None else [value, value]


def _text(x: float | str, y: float, content: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}"{" " * bool(more)}{more}>{escape(content)}</text>'
