"""The default model on real benchmark files, against figures measured independently of this code.

The figures come from an evaluation of the same 4-bit weights with transformers and full-matrix
numpy scoring.
"""

from pathlib import Path

import pytest

from xtremely.eval.run.planning import EvaluationSettings, plan_cells
from xtremely.eval.run.runner import Watcher, run_cell
from xtremely.eval.tasks.task import find_task

DATA = Path(__file__).parents[3] / "shared" / "data"
# language: x->en cosine, en->x cosine, x->en ratio, en->x ratio
MEASURED = {"jv": (60.0, 62.0, 68.3, 67.8), "te": (89.3, 92.7, 95.7, 96.2)}

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="no benchmark data beside the project")


@pytest.mark.oracle
@pytest.mark.parametrize("code", MEASURED)
def test_tatoeba_accuracy(e5, tmp_path, code):
    cells, _ = plan_cells(e5, [find_task("tatoeba")], DATA, EvaluationSettings(), [code])
    records = run_cell(e5, cells[0], EvaluationSettings(), tmp_path, Watcher())["records"]
    scores = {(r["scoring"], r["direction"]): r["score"] for r in records}
    order = [(s, d) for s in ("cosine", "ratio") for d in ("x->en", "en->x")]
    for key, expected in zip(order, MEASURED[code], strict=True):
        assert scores[key] == pytest.approx(expected, abs=0.5), key


def test_all_tatoeba_files_and_the_bucc_dev_set_are_read():
    tatoeba = find_task("tatoeba")
    sizes = {code: len(tatoeba.load(DATA, code)["test"].x) for code in tatoeba.languages}
    assert (len(sizes), sum(sizes.values())) == (36, 31692)
    dev = find_task("bucc2018").load(DATA, "zh")["dev"]
    assert (len(dev.x.ids), len(dev.en.ids), len(dev.gold)) == (8624, 13589, 257)
