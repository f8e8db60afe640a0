"""A run's scores as MTEB's result files, for the task that both have: Tatoeba.

MTEB searches from the foreign language to English by cosine, and its main score is F1 over the
sentences to be found. BUCC is not the same task there: MTEB holds gold pairs only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xtremely.eval.compare.runs import Run
from xtremely.eval.data.languages import language
from xtremely.eval.run.results import Record, dumps
from xtremely.eval.tasks.xtreme.tatoeba import TASK, file_code
from xtremely.files.folders import check_name, own_folder
from xtremely.files.writing import write_atomic
from xtremely.kernels.guard import require

MADE_BY = "compare --mteb"
NAME, REVISION = "Tatoeba", "69e8f12da6e31d59addadda9a9c8a2e601a0e282"  # of mteb's copy
SHOWN_HASH = 40  # characters of a model's hash that stand for its revision
SCRIPTS = {
    "Arabic": "Arab",
    "Bengali": "Beng",
    "Cyrillic": "Cyrl",
    "Devanagari": "Deva",
    "Georgian": "Geor",
    "Greek": "Grek",
    "Han": "Hans",
    "Hangul": "Hang",
    "Hebrew": "Hebr",
    "Japanese": "Jpan",
    "Latin": "Latn",
    "Malayalam": "Mlym",
    "Tamil": "Taml",
    "Telugu": "Telu",
    "Thai": "Thai",
}


def write_mteb(out: Path, runs: Sequence[Run]) -> None:
    """Write MTEB's folder of results: MODEL/REVISION/Tatoeba.json, with model_meta.json beside it.

    Args:
        out: the folder, new or of an earlier call.
        runs: each of another model.

    Raises:
        InputError: a run has no whole test set of Tatoeba, or two runs are of one model.
    """
    files: dict[str, dict[str, Any]] = {}
    for run in runs:
        records = [*_matching(run)]
        model, revision = records[0]["model"], records[0]["model_hash"][:SHOWN_HASH]
        place = f"{check_name(model.replace('/', '__'), 'the model')}/{revision}"
        require(
            f"{place}/{NAME}.json" not in files,
            f"two runs are of {model} with the same weights, and MTEB keeps one result for each"
            " model; name one run",
        )
        files[f"{place}/{NAME}.json"] = {
            "dataset_revision": REVISION,
            "task_name": NAME,
            "mteb_version": None,
            "scores": {"test": [*map(_subset, records)]},
            "evaluation_time": sum(record["seconds"] for record in records),
            "kg_co2_emissions": None,
        }
        files[f"{place}/model_meta.json"] = {"name": model, "revision": revision}
    folder = own_folder(out, MADE_BY, "--mteb")
    folder.add(*files)
    for name, content in files.items():
        write_atomic(out / name, dumps(content).encode("utf-8"))


def _matching(run: Run) -> list[Record]:
    """The records of Tatoeba from the foreign language to English, in the run's main space."""
    main = {code: record for (task, code), record in run.records.items() if task == TASK.name}
    require(bool(main), f"{run.folder} has no score of {TASK.name}, the task that MTEB has, too")
    space = ("layer", "pooling", "centring")
    found = {
        one["language"]: one
        for one in run.every
        if (one["task"], one["direction"], one["scoring"]) == (TASK.name, "x->en", "cosine")
        and one["language"] in main  # the alignment of others is hidden
        and all(one[key] == main[one["language"]][key] for key in space)
    }
    for code, record in found.items():
        remark = TASK.size_remark(code, "test", record["n"])
        require(
            remark is None and record["settings"].get("limit") is None,
            f"{run.folder}: {TASK.name}, {code}: {remark or 'limited'}; MTEB's results are of whole"
            " test sets",
        )
        require(
            "weighted_f1" in record["details"],
            f"{run.folder}: an earlier version made this run and kept no F1; evaluate again, into a"
            " new folder",
        )
    return [*found.values()]


def _subset(record: Record) -> dict[str, Any]:
    """A language's scores, 0 to 1."""
    code, details = record["language"], record["details"]
    long = file_code(code)
    f1 = details["weighted_f1"] / 100
    return {
        "hf_subset": f"{long}-eng",
        "languages": [f"{long}-{SCRIPTS[language(code).script]}", "eng-Latn"],
        "precision": details["weighted_precision"] / 100,
        "recall": record["score"] / 100,
        "f1": f1,
        "accuracy": record["score"] / 100,
        "main_score": f1,
    }
