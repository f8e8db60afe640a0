"""The command line: ``xtremely eval``, ``train``, ``score``, ``check``, ``encode``, ``export``,
``mine``, ``index``, ``tasks``, ``models``, ``kernels``, ``study``.

Exit codes: 0 success, 1 wrong input, 2 wrong usage, 130 and 143 interrupted (Ctrl-C, SIGTERM).
Tables go to standard output, progress and notes to standard error.
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

from xtremely.eval.cli import checking, retrieval, study, training
from xtremely.eval.cli.endings import Stopped, ending, lenient_streams, stoppable
from xtremely.eval.cli.options import (
    MODEL,
    AllowPickle,
    Backend,
    DataRoot,
    Device,
    Layer,
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
    """Handles two exceptions itself, as typer would not mention what is kept."""

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
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Evaluate, train and search with multilingual encoders on XTREME, without padding."""


def _split(text: str | None, option: str) -> list[str] | None:
    """The names in an option's value, each once; None if the option was not given."""
    if text is None:
        return None
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise UsageError(f"{option} names nothing; leave it out, or separate names by commas")
    return names


@app.command("eval")
def evaluate(
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for results.json, report.html and submission/. An interrupted run"
            " continues when it is started again with the same folder."
        ),
    ],
    model: Model = "e5-small-4bit",
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="Folder with one fine-tuned model for each kind of task, in folders called xnli,"
            " pawsx, udpos, panx, squad, tydiqa and xcopa (default: --model is fine-tuned itself)."
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks to evaluate, names from 'xtremely tasks' separated by commas, or all"
            " (default: all with --data-root, else mini)."
        ),
    ] = None,
    data_root: DataRoot = None,
    languages: Annotated[
        str | None,
        typer.Option(
            help="Languages to evaluate, ISO 639-1 codes separated by commas, e.g. de,zh (default:"
            " all that have data)."
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Hidden layers to evaluate embeddings from: all, last, or numbers separated by"
            " commas, e.g. 4,8,last (default: the profile's)."
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            help="How token vectors become one sentence vector: mean (their average), cls (the"
            " first token's), model (the model's own, at the last layer with all its modules), or"
            " several: mean,cls (default: the profile's)."
        ),
    ] = None,
    centring: Annotated[
        str,
        typer.Option(
            help="What to subtract from embeddings: none (nothing), mean (the average embedding of"
            " the language), or both variants: none,mean."
        ),
    ] = "none",
    profile: Annotated[
        str,
        typer.Option(
            help="Source of layer, pooling and prompt: model (the model's own), script (XTREME's"
            " published code) or paper (XTREME's paper)."
        ),
    ] = "model",
    prompt: Prompt = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Number of examples per language to evaluate, at least 2: for a quick look, not"
            " for a benchmark score (default: all)."
        ),
    ] = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    checked: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Compare the model with transformers on a few texts, for a few seconds, before"
            " anything is computed ('xtremely check' is the long form).",
        ),
    ] = True,
    allow_pickle: AllowPickle = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a model on XTREME's tasks and write a report."""
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
    load = partial(
        Engine.load,
        backend=backend,
        device=device,
        precision=precision,
        allow_pickle=allow_pickle,
    )
    asked = _split(languages, "--languages")
    whole = Evaluation(model, load, chosen, data_root, settings, checkpoints, asked, named, checked)
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
    """The tasks, and whether the user named them one by one."""
    from xtremely.eval.tasks.task import all_tasks, find_task

    wanted = _split(names, "--tasks") or (["all"] if data_root else ["mini"])
    named = wanted != ["all"]
    if not named:
        wanted = [task.name for task in all_tasks().values() if not task.packaged]
    chosen = [find_task(name) for name in wanted]
    homeless = [task.name for task in chosen if not task.packaged]
    if homeless and data_root is None:
        raise UsageError(
            f"{', '.join(homeless)}: needs --data-root; without data, use --tasks mini"
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
        Path,
        typer.Argument(
            help="Folder with predictions in XTREME's layout: TASK/test-LANGUAGE.tsv, for question"
            " answering and ranked candidates .json, for xcopa .jsonl."
        ),
    ],
    labels: Annotated[
        Path, typer.Argument(help="Folder with the true labels in files of the same names.")
    ],
    benchmark: Annotated[
        str,
        typer.Option(
            help="The benchmark that says which tasks, languages and groups count: xtreme or"
            " xtreme-r."
        ),
    ] = "xtreme",
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print every metric of every language as JSON, not tables."),
    ] = False,
) -> None:
    """Score a folder of predictions as XTREME's own script does, without a model."""
    from xtremely.eval.cli.display import print_scores
    from xtremely.eval.run.results import dumps
    from xtremely.eval.run.score import score_folder
    from xtremely.eval.scoring.benchmarks import find_benchmark

    scores = score_folder(predictions, labels, find_benchmark(benchmark))
    if as_json:
        typer.echo(dumps(scores), nl=False)
    else:
        print_scores(scores)


app.command("check")(checking.check)
app.command("encode")(retrieval.encode)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help=f"The model to export: {MODEL}.")],
    out: Annotated[Path, typer.Option(help="New folder for model.onnx and the tokenizer's files.")],
    precision: Annotated[
        str,
        typer.Option(
            help="Number format of the exported model: fp32, fp16 (for GPUs) or int8 (weights and"
            " activations)."
        ),
    ] = "fp32",
    head: Annotated[
        str | None,
        typer.Option(
            help="Head to export: classification, tagging, answering or choice (default: none, the"
            " exported model gives sentence embeddings)."
        ),
    ] = None,
    layer: Layer = None,
    pooling: Pooling = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Export a model to ONNX and compare it with torch before it is kept."""
    from xtremely.eval.cli.exporting import export_model
    from xtremely.eval.cli.terminal import note

    note(export_model(model, out, precision, head, layer, pooling, allow_pickle))


@app.command("tasks")
def list_tasks(data_root: DataRoot = None) -> None:
    """List the tasks, with their licences and files, and which languages have data."""
    from xtremely.eval.cli.listings import print_tasks
    from xtremely.eval.tasks.task import all_tasks

    _check_root(data_root)
    print_tasks(list(all_tasks().values()), data_root)


@app.command("models")
def list_models() -> None:
    """List the packaged models and the model types that can be loaded."""
    from xtremely.eval.cli.listings import print_models

    print_models()


app.command("train")(training.train)
app.add_typer(study.app, name="study")

kernels = typer.Typer(help="List what the Triton kernels compile to, or tune them on a GPU.")
app.add_typer(kernels, name="kernels")


@kernels.callback(invoke_without_command=True)
def list_kernels(
    context: typer.Context,
    target: Annotated[
        str, typer.Option(help="GPU architecture to list: sm_80, sm_90 or gfx942.")
    ] = "sm_90",
) -> None:
    """List what the Triton kernels compile to: registers, spills, matrix instructions."""
    from xtremely.eval.cli.kernel_tables import print_kernels

    if context.invoked_subcommand is None:
        print_kernels(target)


@kernels.command("tune")
def tune_kernels(
    only: Annotated[
        str | None,
        typer.Option(help="Kernels to tune, names separated by commas (default: all kernels)."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="Number formats to tune for, separated by commas: fp32, fp16 and bf16."),
    ] = "fp16,bf16",
    out: Annotated[
        Path | None,
        typer.Option(help="JSON file for the fastest settings (default: the package's own table)."),
    ] = None,
) -> None:
    """Measure the kernels' settings on this GPU and keep the fastest."""
    from xtremely.eval.cli.kernel_tables import print_tuning

    print_tuning(_split(only, "--only"), _split(precision, "--precision") or [], out)


app.command("mine")(retrieval.mine)
app.add_typer(retrieval.index, name="index")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a foreseeable error ends in one line and an exit code."""
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
