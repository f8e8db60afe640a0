"""The command line of studies: ``xtremely study run``, ``report`` and ``pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xtremely.eval.cli.options import (
    AllowPickle,
    Backend,
    Precision,
    Quiet,
    Ray,
    TrainingDevice,
    check_root,
)
from xtremely.files.folders import check_outputs
from xtremely.kernels.guard import UsageError, require, require_number

app = typer.Typer(
    help="Compare source languages of training: run a grid of trainings and report on it.",
    no_args_is_help=True,
)

Grid = Annotated[
    Path, typer.Argument(help="TOML file that describes the study's trainings (see docs/study.md).")
]
Models = Annotated[
    Path | None,
    typer.Option(
        help="Folder in which models are looked up by name first (default: packaged models and the"
        " Hugging Face hub)."
    ),
]


@app.command("run")
def run(
    grid: Annotated[
        Path,
        typer.Argument(
            help="TOML file that describes the study's trainings (see docs/study.md), or a bundle"
            " made by 'xtremely study pack'."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the results of every training. An interrupted study continues when it"
            " is started again with the same folder."
        ),
    ],
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder with benchmark data, or hub: to take each task from its repository on the"
            " Hugging Face hub; needed unless a bundle brings its own data."
        ),
    ] = None,
    models: Models = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Trainings to run at the same time on the device; with --ray, on each GPU."
        ),
    ] = 1,
    ray: Ray = None,
    device: TrainingDevice = "auto",
    backend: Backend = "auto",
    precision: Precision = "fp32",
    keep_models: Annotated[
        bool,
        typer.Option(
            "--keep-models", help="Keep the trained models, which are else deleted after testing."
        ),
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(help="JSON file for the results of all trainings (default: OUT/NAME.json)."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="List the trainings and estimate their time, and train nothing."
        ),
    ] = False,
    allow_pickle: AllowPickle = False,
    quiet: Quiet = False,
) -> None:
    """Run the trainings of a study that are not finished yet, and test them."""
    from xtremely.eval.study import estimate
    from xtremely.eval.study.grid import read_grid
    from xtremely.eval.study.pack import SUFFIX
    from xtremely.eval.study.run import StudySettings, run_study
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
    if data_root is None:
        raise UsageError("a study needs --data-root, unless it runs from a bundle")
    check_root(data_root)
    settings = StudySettings(
        *(data_root, out, models, device, workers, ray, keep_models, results, allow_pickle),
        *(backend, precision),
    )
    study = read_grid(grid)
    if dry_run:
        for line in estimate.dry_run(study, settings):
            typer.echo(line)
        return
    say = _discard if quiet else _print_line
    run_study(study, settings, say)


@app.command("report")
def report(
    grids: Annotated[
        list[Path], typer.Argument(help="TOML files of one or more studies, reported on together.")
    ],
    cells: Annotated[
        list[Path],
        typer.Option(
            "--run",
            help="Folder of 'xtremely study run', or its file of results; given once for each run.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json and tables.md.")],
    into: Annotated[
        Path | None,
        typer.Option(
            help="Markdown page to update too: the tables between its marks <!-- tables --> and"
            " <!-- end of tables --> are replaced."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Report on the trainings of a study that are finished."""
    from xtremely.eval.study.cells import results_of
    from xtremely.eval.study.grid import read_grid
    from xtremely.eval.study.report import write_study_report

    if into is not None:
        check_outputs({"--into": into}, {str(path): path for path in [*grids, *cells]})
    results = [one for run in cells for one in results_of(run)]
    found = write_study_report([read_grid(path) for path in grids], results, out, into)
    if not quiet:
        missing = len(found["missing"])
        _print_line(
            f"{len(found['cells'])} cells, {len(found['tables'])} tables -> {out}/report.html"
            + (f"; {missing} cells are not finished" if missing else "")
        )


@app.command("pack")
def pack(
    grid: Grid,
    data_root: Annotated[
        Path, typer.Option(help="Folder with benchmark data to take the study's files from.")
    ],
    out: Annotated[Path, typer.Option(help="File for the bundle, ending in .tar.xz.")],
    models: Models = None,
    allow_pickle: AllowPickle = False,
    quiet: Quiet = False,
) -> None:
    """Pack a study with its data and models into one small file for another machine."""
    from xtremely.eval.study.pack import pack as write

    if not data_root.is_dir():
        raise UsageError(f"--data-root {data_root}: there is no such folder")
    summary = write(grid, data_root, out, models, allow_pickle)
    if not quiet:
        pieces = ", ".join(f"{name} with {n:,} pieces" for name, n in summary["pieces"].items())
        size = f"{summary['bytes'] / 1e6:.1f} MB"
        _print_line(f"{out}: {size}; {pieces}, {summary['files']} data files")


def _print_line(text: str) -> None:
    typer.echo(text, err=True)


def _discard(text: str) -> None:
    pass
