"""The command line: ``xtremely eval``, ``train``, ``score``, ``encode``, ``export``, ``mine``,
``index``, ``tasks``, ``models``, ``kernels``, ``study``.

Exit codes: 0 fine, 1 failed, 2 wrong usage, 130 and 143 interrupted (Ctrl-C, SIGTERM). Tables go to
standard output, progress and notes to standard error.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xtremely.eval.cli import retrieval, study, training
from xtremely.eval.cli.endings import Stopped, ending, lenient_streams, stoppable
from xtremely.eval.cli.options import (
    Backend,
    DataRoot,
    Device,
    Model,
    Pooling,
    Precision,
    Prompt,
    Quiet,
    check_arguments,
)
from xtremely.eval.plain import say, warn_in_notes
from xtremely.kernels.guard import InputError, UsageError


class _Commands(TyperGroup):
    """Typer reports these two as its own, with no word of what is kept."""

    def invoke(self, context: Any) -> object:
        """Run a command."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt as error:
            raise Stopped(signal.SIGINT) from error
        except EOFError as error:
            raise InputError(f"a file ends too early ({error}); is it whole?") from error


app = typer.Typer(
    name="xtremely",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xtremely {metadata.version('xtremely')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Evaluate multilingual encoders on XTREME, on padding-free batches."""


def _split(text: str | None, option: str) -> list[str] | None:
    """The names that an option lists, each once; None if it was not given."""
    if text is None:
        return None
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise UsageError(f"{option} names nothing; leave it out, or separate names by commas")
    return names


@app.command("eval")
def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for results; a run started again goes on.")],
    model: Model = "e5-small-4bit",
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the model fine-tuned for tasks that need a head: xnli, pawsx, udpos,"
            " panx, squad, tydiqa, xcopa (default: the model itself has the head)."
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="Names separated by commas, or 'all' (default: mini without data)."),
    ] = None,
    data_root: DataRoot = None,
    languages: Annotated[
        str | None, typer.Option(help="ISO 639-1 codes, e.g. de,zh (default: all with data).")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="all, last, a number, or several: 4,8,last.")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls, or mean,cls (default: the profile's).")
    ] = None,
    centring: Annotated[
        str, typer.Option(help="none, mean (take each side's mean off), or none,mean.")
    ] = "none",
    profile: Annotated[
        str, typer.Option(help="model (its own settings), script or paper (XTREME's published).")
    ] = "model",
    prompt: Prompt = None,
    limit: Annotated[
        int | None, typer.Option(help="Only so many sentences: a quick look, not the benchmark.")
    ] = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    quiet: Quiet = False,
) -> None:
    """Evaluate a model on tasks; writes results.json, submission/ and report.html."""
    from xtremely.engine.runtime import Engine
    from xtremely.eval.cli.display import ProgressWatcher, print_summary
    from xtremely.eval.report.html import write_report
    from xtremely.eval.run import planning
    from xtremely.eval.run.evaluation import Evaluation
    from xtremely.eval.run.folder import check_submission, run_folder, write_submission
    from xtremely.eval.run.results import write_results
    from xtremely.eval.run.runner import records_of

    chosen, named = _tasks(tasks, data_root)
    _check_root(data_root)
    if checkpoints is not None and not checkpoints.is_dir():
        raise UsageError(f"--checkpoints {checkpoints}: there is no such folder")
    settings = planning.EvaluationSettings(
        profile=profile,
        layers=layers,
        poolings=tuple(_split(pooling, "--pooling") or ()) or None,
        centrings=tuple(_split(centring, "--centring") or ()),
        prompt=prompt,
        limit=limit,
    )
    load = partial(Engine.load, backend=backend, device=device, precision=precision)
    asked = _split(languages, "--languages")
    whole = Evaluation(model, load, chosen, data_root, settings, checkpoints, asked, named)
    whole.check()
    with run_folder(out) as folder:
        with ProgressWatcher(quiet) as watcher:
            results, notes = whole.run(out, watcher, partial(check_submission, folder))
        records = records_of(results)
        write_submission(folder, results)
        write_results(out / "results.json", records)
        write_report(out / "report.html", records, notes)
    if not quiet:
        print_summary(records, notes, out)


def _tasks(names: str | None, data_root: Path | None) -> tuple[list, bool]:
    """The tasks, and whether they were named one by one."""
    from xtremely.eval.tasks.task import all_tasks, find_task

    wanted = _split(names, "--tasks") or (["all"] if data_root else ["mini"])
    named = wanted != ["all"]
    if not named:
        wanted = [task.name for task in all_tasks().values() if not task.packaged]
    chosen = [find_task(name) for name in wanted]
    homeless = [task.name for task in chosen if not task.packaged]
    if homeless and data_root is None:
        raise UsageError(
            f"{', '.join(homeless)}: needs --data-root; without data, --tasks mini runs"
        )
    return chosen, named


def _check_root(data_root: Path | None) -> None:
    from xtremely.eval.data.hub import HUB, is_hub

    if str(data_root) == HUB:
        raise UsageError(f"--data-root {HUB} names no dataset; legal: {HUB}google/xtreme")
    if data_root is not None and not is_hub(data_root) and not data_root.is_dir():
        raise UsageError(f"--data-root {data_root}: there is no such folder")


@app.command()
def score(
    predictions: Annotated[
        Path, typer.Argument(help="A submission: TASK/test-LL.tsv, or .json for answers.")
    ],
    labels: Annotated[Path, typer.Argument(help="The gold labels under the same names.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Every metric of every language, as JSON.")
    ] = False,
) -> None:
    """Score a submission folder as XTREME's own script does; needs no model."""
    from xtremely.eval.cli.display import print_scores
    from xtremely.eval.run.results import dumps
    from xtremely.eval.scoring.score import score_folder

    scores = score_folder(predictions, labels)
    if as_json:
        typer.echo(dumps(scores), nl=False)
    else:
        print_scores(scores)


app.command("encode")(retrieval.encode)


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(help="A packaged model, a Hugging Face folder, or a hub name.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make: model.onnx and its tokenizer.")],
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 (for GPUs) or int8 (weights and activations).")
    ] = "fp32",
    head: Annotated[
        str | None,
        typer.Option(
            help="classification, tagging, answering or choice: the model's head instead of"
            " sentence embeddings."
        ),
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="Hidden layer of embeddings (default: the last).")
    ] = None,
    pooling: Pooling = None,
) -> None:
    """Write a model as ONNX, compared with torch before it is kept."""
    from xtremely.eval.cli.exporting import export_model
    from xtremely.eval.cli.terminal import note

    note(export_model(model, out, precision, head, layer, pooling))


@app.command("tasks")
def list_tasks(data_root: DataRoot = None) -> None:
    """The tasks, and with --data-root which languages have data there."""
    from xtremely.eval.cli.listings import print_tasks
    from xtremely.eval.tasks.task import all_tasks

    _check_root(data_root)
    print_tasks(list(all_tasks().values()), data_root)


@app.command("models")
def list_models() -> None:
    """The packaged models, and what else can be named."""
    from xtremely.eval.cli.listings import print_models

    print_models()


app.command("train")(training.train)
app.add_typer(study.app, name="study")

kernels = typer.Typer(help="The Triton kernels: what they compile to, and tuning them.")
app.add_typer(kernels, name="kernels")


@kernels.callback(invoke_without_command=True)
def list_kernels(
    context: typer.Context,
    target: Annotated[str, typer.Option(help="sm_80, sm_90 or gfx942.")] = "sm_90",
) -> None:
    """What the Triton kernels compile to: registers, spills, matrix instructions."""
    from xtremely.eval.cli.kernel_tables import print_kernels

    if context.invoked_subcommand is None:
        print_kernels(target)


@kernels.command("tune")
def tune_kernels(
    only: Annotated[
        str | None, typer.Option(help="Kernels separated by commas (default: all).")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, bf16, or several: fp16,bf16.")
    ] = "fp16,bf16",
    out: Annotated[
        Path | None, typer.Option(help="The table to write (default: the package's own).")
    ] = None,
) -> None:
    """Measure every kernel's settings on this GPU and keep the fastest."""
    from xtremely.eval.cli.kernel_tables import print_tuning

    print_tuning(_split(only, "--only"), _split(precision, "--precision") or [], out)


app.command("mine")(retrieval.mine)
app.add_typer(retrieval.index, name="index")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every foreseeable trouble ends in one line and an exit code."""
    warn_in_notes()
    given = sys.argv[1:] if arguments is None else arguments
    command = " ".join(given[:2])
    with stoppable() as seen:
        try:
            with lenient_streams():
                check_arguments(given)
                app(given)
        except BaseException as error:
            found = ending(error, command, seen)
            if found is None:
                raise
            say("error:", "red", found[0])
            sys.exit(found[1])
