"""``xtremely compare`` and ``eval --model A,B`` as a user meets them."""

import csv
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from pyarrow import parquet
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from xtremely.eval.compare.comparison import compare
from xtremely.eval.compare.runs import read_runs
from xtremely.eval.run.kept import keep


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A data root with PAWS-X in two languages: 40 pairs, two to a first text."""
    root, rng = tmp_path_factory.mktemp("pawsx"), np.random.default_rng(0)
    (root / "pawsx").mkdir()
    for code in ("de", "fr"):
        texts = ["".join(rng.choice([*"abcdefgh "], 20)).strip() for _ in range(60)]
        rows = [(texts[n // 2], texts[20 + n], n % 3 % 2) for n in range(40)]
        lines = ["\t".join(map(str, row)) + "\n" for row in rows]
        (root / f"pawsx/test-{code}.tsv").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def models(make_tiny, labelled, tmp_path_factory):
    """Two classifiers with random weights, and biases by which they choose each label for half of
    the pairs.
    """
    form, made = "AutoModelForSequenceClassification", []
    lines = (labelled / "pawsx/test-de.tsv").read_text().splitlines()
    pairs = [tuple(line.split("\t")[:2]) for line in lines]
    for size in (32, 64):
        folder = make_tiny("bert", form, id2label={0: "0", 1: "1"}, hidden_size=size)
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        inputs = AutoTokenizer.from_pretrained(folder)(pairs, padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits
            model.classifier.bias += torch.tensor([(logits[:, 1] - logits[:, 0]).median(), 0.0])
        model.save_pretrained(folder)
        made.append(folder.rename(tmp_path_factory.mktemp("models") / f"bert-{size}"))
    return made


@pytest.fixture
def run(xtremely, labelled, models, tmp_path):
    """Evaluates a model into a folder."""

    def run(number, name, *more):
        code, _, notes = xtremely(
            "eval", "--model", models[number], "--tasks", "pawsx", "--data-root", labelled,
            "--out", tmp_path / name, "--no-check", "--quiet", *more,
        )  # fmt: skip
        assert code == 0, notes
        return tmp_path / name

    return run


def pairs_right(folder, code, labelled):
    """Whether each pair was classified right, from the run's predictions and the data."""
    found = (folder / f"submission/pawsx/test-{code}.tsv").read_text().splitlines()
    gold = (labelled / f"pawsx/test-{code}.tsv").read_text().splitlines()
    return [a == line.split("\t")[2] for a, line in zip(found, gold, strict=True)]


def test_runs_stand_side_by_side_in_every_format(xtremely, run, labelled, tmp_path):
    a, b = run(0, "a"), run(1, "b")
    files = [tmp_path / f"c{suffix}" for suffix in (".html", ".md", ".tex", ".csv", ".parquet")]
    options = [part for path in files for part in ("--save", path)]
    code, shown, notes = xtremely("compare", a, b, *options)
    assert (code, notes) == (0, "")
    right = {(run, c): pairs_right(run, c, labelled) for run in (a, b) for c in ("de", "fr")}
    score = {key: 100 * sum(one) / 40 for key, one in right.items()}
    means = [(score[run, "de"] + score[run, "fr"]) / 2 for run in (a, b)]
    for mean in means:
        assert f"{mean:.2f}" in shown and f"{mean:.1f}" in files[1].read_text()
    assert f"{means[1] - means[0]:+.1f}".replace("-", "−") in shown

    with files[3].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["language"], float(row["score"])) for row in rows] == [
        (c, pytest.approx(score[run, c], abs=1e-4)) for run in (a, b) for c in ("de", "fr")
    ]
    assert [row["difference"] for row in rows[:2]] == ["", ""]
    assert float(rows[2]["difference"]) == pytest.approx(score[b, "de"] - score[a, "de"], abs=1e-4)
    assert float(rows[2]["low"]) < float(rows[2]["difference"]) < float(rows[2]["high"])
    table = parquet.read_table(files[4]).to_pylist()
    assert [row["score"] for row in table] == [float(row["score"]) for row in rows]
    assert r"\toprule" in files[2].read_text() and files[2].read_text().count(r"\\") == 3

    page = files[0].read_text()
    assert "German" in page and "family: Indo-European" in page and "script: Latin" in page
    assert not re.search(r"(src|href)=\"(?!#)", page), "the page loads something"


def test_one_run_alone_is_shown_and_saved(xtremely, run, labelled, tmp_path):
    a = run(0, "a")
    code, shown, _ = xtremely(
        "compare", a, "--save", tmp_path / "c.html", "--save", tmp_path / "c.md"
    )
    mean = sum(100 * sum(pairs_right(a, code, labelled)) / 40 for code in ("de", "fr")) / 2
    assert code == 0 and f"{mean:.2f}" in shown and "differences" not in shown
    assert f"| {mean:.1f} |" in (tmp_path / "c.md").read_text()
    assert "ifferences" not in (tmp_path / "c.html").read_text()


def test_intervals_come_from_the_predictions(run, labelled, tmp_path):
    """The standard error of one language is that of a bootstrap over first texts."""
    a, b = run(0, "a"), run(1, "b")
    found = compare(read_runs([a, b])).tasks[0]
    (name,) = found.languages
    gaps = np.subtract(*(np.array(pairs_right(run, "de", labelled), float) for run in (b, a)))
    by_text = gaps.reshape(20, 2).sum(axis=1)
    rng = np.random.default_rng(0)
    again = [100 * by_text[rng.integers(0, 20, 20)].sum() / 40 for _ in range(4000)]
    one = found.languages[name]["de"]
    assert one.value == pytest.approx(100 * gaps.mean(), abs=1e-4)
    assert one.error == pytest.approx(np.std(again), rel=0.1) and one.freedom == 19


def test_the_same_run_twice_does_not_differ(xtremely, run):
    a = run(0, "a")
    b = a.with_name("copy")
    shutil.copytree(a, b)
    code, shown, _ = xtremely("compare", a, b)
    assert code == 0 and "+0.0" in shown and "cannot tell" in shown
    assert f"({a})" in shown and f"({b})" in shown  # only their folders tell them apart


def test_what_keeps_a_mean_from_being_the_benchmarks_is_stated(xtremely, run, tmp_path):
    limited = run(0, "a", "--limit", "20")
    code, shown, _ = xtremely("compare", limited, "--save", tmp_path / "c.tex")
    assert code == 0
    for text in (shown, (tmp_path / "c.tex").read_text()):
        assert "pawsx: 2 of 7 languages; limited to 20 examples; 40 of 2,000 examples" in text
    code, shown, _ = xtremely("compare", limited, "--benchmark", "xtreme-r")
    assert code == 0 and "pawsx: no task of XTREME-R (XTREME)" in shown


def test_odd_values_in_a_record_are_shown(xtremely, run, tmp_path):
    a, b = run(0, "a"), run(1, "b")
    change(b, check={"result": ["<b>"]}, max_length={"most": 1}, prompt="query: ")
    code, _, notes = xtremely("compare", a, b, "--save", tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text()
    assert (code, notes) == (0, "") and "<b>" not in page
    assert "&#39;query: &#39;" in page and "{&#39;most&#39;: 1}" in page


def test_runs_of_other_weights_are_not_told_apart_by_their_precision(run):
    """Two models of one name: a difference between them is not that of fp32 and int8."""
    a, b = run(0, "a"), run(1, "b")
    for folder, precision in ((a, "fp32"), (b, "int8")):
        change(folder, model="bert", precision=precision)
    assert [one.name for one in read_runs([a, b])] == [f"bert ({a})", f"bert ({b})"]
    change(a, model_hash="0")
    change(b, model_hash="0")
    assert [one.name for one in read_runs([a, b])] == ["bert, fp32", "bert, int8"]


def test_another_run_can_be_the_first(xtremely, run):
    a, b = run(0, "a"), run(1, "b")
    for name in (b, read_runs([a, b])[1].name):
        code, shown, _ = xtremely("compare", a, b, "--against", name)
        assert code == 0 and f"differences to {read_runs([a, b])[1].name}" in shown
    code, _, notes = xtremely("compare", a, b, "--against", "c")
    assert code == 2 and "unknown run 'c'" in notes


def test_a_folder_may_be_typed_in_any_way(run, tmp_path, monkeypatch):
    """Shells complete the name of a folder with a slash."""
    runs = read_runs([run(0, "a"), run(1, "b")])
    monkeypatch.chdir(tmp_path)
    for against in ("b", "b/", "./b", "a/../b", f"{tmp_path}/b/"):
        assert compare(runs, against).against is runs[1]


def test_a_name_in_the_table_comes_before_a_folder(run, tmp_path, monkeypatch):
    """The model of each run is called like the folder of the other."""
    a, b = run(0, "bert-64"), run(1, "bert-32")
    monkeypatch.chdir(tmp_path)
    assert [one.name for one in read_runs([a, b])] == ["bert-32", "bert-64"]
    assert compare(read_runs([a, b]), "bert-64").against.folder == b


def test_folders_whose_names_are_no_text_are_in_every_format(xtremely, run, tmp_path):
    a = run(0, "a")
    odd = tmp_path / os.fsdecode(b"\xff|")
    shutil.copytree(a, odd)
    for suffix in (".html", ".md", ".tex", ".csv", ".parquet"):
        path = tmp_path / f"c{suffix}"
        assert xtremely("compare", odd, a, "--save", path)[0] == 0
    latex = (tmp_path / "c.tex").read_text()
    assert r"\textbackslash{}udcff\textbar{})" in latex  # the fonts of LaTeX have a dash for a bar
    (first, *_) = parquet.read_table(tmp_path / "c.parquet").to_pylist()
    assert first["run"] == f"bert-32 ({tmp_path}/\\udcff|)"


def test_languages_that_one_run_lacks_are_left_out_and_named(xtremely, run, labelled):
    a, b = run(0, "a"), run(1, "b", "--languages", "fr")
    code, shown, _ = xtremely("compare", a, b)
    assert code == 0 and "pawsx is compared without de, which not all runs have" in shown
    assert f"{100 * sum(pairs_right(a, 'fr', labelled)) / 40:.2f}" in shown


def test_several_models_are_evaluated_into_one_comparison(xtremely, labelled, models, tmp_path):
    out = tmp_path / "out"
    arguments = [
        "eval", "--model", ",".join(map(str, models)), "--tasks", "pawsx", "--data-root", labelled,
        "--out", out, "--no-check",
    ]  # fmt: skip
    code, shown, _ = xtremely(*arguments)
    assert code == 0 and f"differences to {models[0].name}" in shown
    assert "<html" in (out / "comparison.html").read_text()
    for model in models:
        records = json.loads((out / model.name / "results.json").read_text())["records"]
        assert {record["model"] for record in records} == {model.name}
    cells = {path: path.stat().st_mtime_ns for path in out.glob("*/cells/*.json")}
    assert xtremely(*arguments)[0] == 0  # nothing is computed again
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/cells/*.json")} == cells


def test_models_of_one_name_need_folders_of_their_own(xtremely, labelled, models, tmp_path):
    twin = tmp_path / "other" / models[0].name
    shutil.copytree(models[0], twin)
    code, _, notes = xtremely(
        "eval", "--model", f"{models[0]},{twin}", "--tasks", "pawsx", "--data-root", labelled,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 2 and "xtremely compare" in notes and not (tmp_path / "out").exists()


def test_a_missing_model_is_named_before_any_is_evaluated(xtremely, labelled, models, tmp_path):
    code, _, notes = xtremely(
        "eval", "--model", f"{models[0]},{tmp_path}/none", "--tasks", "pawsx", "--data-root",
        labelled, "--out", tmp_path / "out",
    )  # fmt: skip
    assert code != 0 and "none" in notes and not (tmp_path / "out").exists()


def change(folder, **values):
    """Change fields or settings of a run's records."""
    path = folder / "results.json"
    content = json.loads(path.read_text())
    for record in content["records"]:
        for key, value in values.items():
            (record if key in record else record["settings"])[key] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("field", "value"),
    [("data_hash", "0" * 64), ("split", "dev"), ("n", 39), ("limit", 20), ("profile", "script")],
)
def test_runs_on_other_data_or_by_other_rules_are_refused(xtremely, run, field, value):
    a, b = run(0, "a"), run(1, "b")
    change(b, **{field: value})
    code, _, notes = xtremely("compare", a, b)
    assert code == 1 and "cannot be compared" in notes and f"pawsx, de: {field} is" in notes


def test_runs_with_other_limits_are_refused(xtremely, run):
    code, _, notes = xtremely("compare", run(0, "a"), run(1, "b", "--limit", "20"))
    assert code == 1 and "n is 40 and 20" in notes


def without_outcomes(folder):
    content = json.loads((folder / "outcomes.json").read_text())
    del content["outcomes"]["pawsx"]["de"], content["checksum"]
    keep(folder / "outcomes.json", content)


def flipped(folder):
    text = (folder / "outcomes.json").read_text()
    (folder / "outcomes.json").write_text(text.replace('"earned": "', '"earned": "A', 1))


FAULTS = {
    "of an earlier version": (lambda folder: (folder / "outcomes.json").unlink(), "kept no"),
    "without a language's outcomes": (without_outcomes, "pawsx, de: there are no outcomes"),
    "with another score": (lambda folder: change(folder, score=12.5), "12.500"),
    "changed": (flipped, "was changed or cut"),
    "unfinished": (lambda folder: (folder / "results.json").unlink(), "no finished run"),
    "without scores": (lambda folder: change(folder, score=None), "no score is in this run"),
}


@pytest.mark.parametrize(("spoil", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_run_that_cannot_be_read_is_refused(xtremely, run, spoil, message):
    a, b = run(0, "a"), run(1, "b")
    spoil(b)
    code, _, notes = xtremely("compare", a, b)
    assert code == 1 and message in notes and len(notes.splitlines()) == 1


def test_wrong_usage(xtremely, run, tmp_path):
    a, b = run(0, "a"), run(1, "b")
    for arguments, message in (
        ((a, a), "named twice"),
        ((a, b, "--save", tmp_path / "c.pdf"), "legal: .html, .md, .tex, .csv, .parquet"),
    ):
        code, _, notes = xtremely("compare", *arguments)
        assert code == 2 and message in notes
    code, _, notes = xtremely("compare", a, b, "--save", a / "report.html")
    assert code == 1 and "needs a name of its own" in notes
