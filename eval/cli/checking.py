"""``xtremely check``: a table of what was found about a model, or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from xtremely.eval.cli.options import MODEL, AllowPickle, Device, Quiet
from xtremely.kernels.guard import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from xtremely.eval.check.whole import Report

RESULTS = {True: "passed", False: "failed", None: "left out"}


def check(
    model: Annotated[str, typer.Argument(help=f"The model to check: {MODEL}.")],
    device: Device = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything that was found as JSON, not tables.")
    ] = False,
    allow_pickle: AllowPickle = False,
    quiet: Quiet = False,
) -> None:
    """Check a model on this machine against transformers, layer by layer and on every backend."""
    from xtremely.eval.check.whole import check_model
    from xtremely.eval.cli.terminal import note
    from xtremely.eval.run.results import dumps

    begun = (lambda name: None) if quiet else lambda name: note(f"checking {name}")
    report = check_model(model, device, begun, allow_pickle)
    if as_json:
        typer.echo(dumps(report.document()), nl=False)
    elif not quiet:
        _print(report)
    if report.failure is not None:
        raise InputError(f"the check failed: {report.failure}")


def _print(report: Report) -> None:
    """The model, a table of its checks, a table of backends, and where checks failed."""
    from xtremely.eval.cli.terminal import figures, line, show, table

    for name, value in report.model.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        line(f"{name}: {shown or 'none'}", style="dim")
    of_backends = [one for row in report.backends for one in row.findings]
    made = table("checks", "check", "result")
    figures(made, "difference", "limit")
    for one in report.findings:
        if one not in of_backends or one.passed is False:
            style = "bold red" if one.passed is False else None
            made.add_row(
                one.name, RESULTS[one.passed], *map(_short, (one.figure, one.limit)), style=style
            )
    show(made)
    if any(row.cosines for row in report.backends):
        show(_backends(report))
    for row in report.backends:
        if row.left_out:
            line(f"{row.backend} {row.precision} does not run here: {row.left_out}", style="dim")
    for one in report.findings:
        if one.passed is None:
            line(f"{one.name}: left out: {one.remark}", style="dim")
        elif one.passed is False:
            line(str(one), style="red")


def _backends(report: Report) -> Table:
    from xtremely.eval.cli.terminal import figures, table

    made = table("backends and precisions; cosines and flips against torch in fp32", "backend")
    names = ("cosine", "worst", "centred", "worst", "flips", "memory", "tokens/s")
    figures(made, "states", "company", *names)
    for row in report.backends:
        if not row.cosines:
            continue
        states, company = row.findings
        memory = "–" if row.memory_mb is None else f"{row.memory_mb:,.0f} MB"
        made.add_row(
            f"{row.backend} {row.precision}",
            _short(states.figure),
            "equal" if company.figure == 0 else _short(company.figure),
            *(f"{cosine:.5f}" for cosine in row.cosines.values()),
            f"{row.flips}/{row.predictions:,}",
            memory,
            f"{row.tokens_per_second:,.0f}",
        )
    return made


def _short(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.1e}" if 0 < figure < 1e-2 else f"{figure:.2g}"
