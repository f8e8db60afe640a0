"""The command line of studies: ``xtremely study run``, ``report`` and ``pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xtremely.files.folders import check_outputs
from xtremely.kernels.guard import UsageError, require, require_number

app = typer.Typer(
    help="What the source language of training changes: a grid of training runs, and its report.",
    no_args_is_help=True,
)

Grid = Annotated[Path, typer.Argument(help="The study's grid, a TOML file (see studies/).")]
Models = Annotated[
    Path | None,
    typer.Option(help="Folder with models by name, looked into before any other place."),
]


@app.command("run")
def run(
    grid: Annotated[
        Path, typer.Argument(help="The study's grid, a TOML file, or a bundle of 'study pack'.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the cells; a run started again goes on.")],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder with benchmark data; a bundle brings its own.")
    ] = None,
    models: Models = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Cells that are run at once, in processes that share the device; with Ray, cells"
            " that share a GPU."
        ),
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Run the cells on Ray: 'local', 'auto', or a cluster's address; all its machines"
            " see the same files."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Keep the trained models in the cells' folders.")
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(help="The file with all finished cells (default: OUT/NAME.json)."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only list cells and shared phases, and estimate the time."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")] = False,
) -> None:
    """Train and test every cell of a grid that is not finished yet, first seeds first."""
    from xtremely.eval.study import estimate
    from xtremely.eval.study.grid import read_grid
    from xtremely.eval.study.pack import SUFFIX
    from xtremely.eval.study.run import Place, run_study
    from xtremely.eval.study.unpack import unpack

    require_number("--workers", workers, 1, 1024)
    if results is not None:
        check_outputs({"--results": results}, {"the grid": grid})
        require(not results.is_dir(), f"--results {results} is a folder; name a file")
    if grid.name.endswith(SUFFIX):
        if data_root is not None or models is not None:
            raise UsageError(
                f"{grid} is a bundle, which brings its own data and models; leave out --data-root"
                " and --models"
            )
        unpacked = unpack(grid, out)
        grid, data_root, models = (unpacked / name for name in ("grid.toml", "data", "models"))
    if data_root is None or not data_root.is_dir():
        raise UsageError(
            "a study needs --data-root"
            + (f"; {data_root} is no folder" if data_root else ", unless it runs from a bundle")
        )
    place = Place(data_root, out, models, device, workers, ray, keep_models, results)
    study = read_grid(grid)
    if dry_run:
        for line in estimate.dry_run(study, place):
            typer.echo(line)
        return
    say = _nothing if quiet else _say
    run_study(study, place, say)


@app.command("report")
def report(
    grids: Annotated[list[Path], typer.Argument(help="Grids to report on together.")],
    cells: Annotated[
        list[Path],
        typer.Option(
            "--run", help="A run's folder or file of results; may be given several times."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json and tables.md.")],
    into: Annotated[
        Path | None,
        typer.Option(help="A Markdown page whose tables, between its marks, are exchanged."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")] = False,
) -> None:
    """Report on whatever cells are finished."""
    from xtremely.eval.study.cells import results_of
    from xtremely.eval.study.grid import read_grid
    from xtremely.eval.study.report import write_study_report

    if into is not None:
        check_outputs({"--into": into}, {str(path): path for path in [*grids, *cells]})
    results = [one for run in cells for one in results_of(run)]
    found = write_study_report([read_grid(path) for path in grids], results, out, into)
    if not quiet:
        missing = len(found["missing"])
        _say(
            f"{len(found['cells'])} cells, {len(found['tables'])} tables -> {out}/report.html"
            + (f"; {missing} cells are not finished" if missing else "")
        )


@app.command("pack")
def pack(
    grid: Grid,
    data_root: Annotated[Path, typer.Option(help="Folder with benchmark data.")],
    out: Annotated[Path, typer.Option(help="The bundle to write, a .tar.xz file.")],
    models: Models = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")] = False,
) -> None:
    """Put grid, data and models into one small file for another machine."""
    from xtremely.eval.study.pack import pack as write

    told = write(grid, data_root, out, models)
    if not quiet:
        pieces = ", ".join(f"{name} with {n:,} pieces" for name, n in told["pieces"].items())
        _say(f"{out}: {told['bytes'] / 1e6:.1f} MB; {pieces}, {told['files']} data files")


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _nothing(text: str) -> None:
    pass
