"""Oracles: the checkpoint that is best on the target languages' dev sets, beside the last one."""

import json
import shutil
from dataclasses import replace

import pytest
from study_results import made
from training_cases import two_phases

from xtremely.engine.training import trainer as mechanics
from xtremely.eval.study.contrast_tables import contrast_lines
from xtremely.eval.study.contrasts import contrasts
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.pack import pack
from xtremely.eval.study.run import StudySettings, plan, run_study
from xtremely.eval.training.data import Reader
from xtremely.eval.training.recipe import Phase, Source, as_mapping, settled
from xtremely.kernels.guard import UsageError

HEAD = """
name = "oracles"
models = ["tiny"]
seeds = [1, 2]
"""
PART = """
[[part]]
name = "NAME"
sources = ["none"]
[[part.train]]
task = "udpos"
source = "en"
examples = 8
epochs = 8
batch_size = 4
learning_rate = 0.003
warmup = 0
[[part.test]]
task = "udpos"
"""
CHOICE = 'patience = 100\nevaluate_steps = 2\ndev_languages = ["de"]\n'  # epochs of two steps
LAST = PART.replace("NAME", "pos")
ORACLE = PART.replace("NAME", "best").replace("warmup = 0\n", f"warmup = 0\n{CHOICE}")


@pytest.fixture(scope="module")
def root(small_study, tmp_path_factory):
    """The small study with a German dev set, which is its test set, too."""
    root = tmp_path_factory.mktemp("oracles")
    shutil.copytree(small_study / "data", root / "data")
    (root / "models").symlink_to(small_study / "models")
    shutil.copy(root / "data/udpos/test-de.tsv", root / "data/udpos/dev-de.tsv")
    (root / "grid.toml").write_text(HEAD + LAST + ORACLE)
    return root


@pytest.fixture(scope="module")
def results(root, tmp_path_factory):
    place = StudySettings(
        root / "data", tmp_path_factory.mktemp("run"), root / "models", device="cpu"
    )
    grid = read_grid(root / "grid.toml")
    with pytest.MonkeyPatch.context() as patched:  # tests are in fp32, so let dev scores be, too
        patched.setattr(mechanics, "has_fast_bf16", lambda device: False)
        return [*zip(grid.cells, run_study(grid, place, lambda _: None), strict=True)]


def german(result):
    return result["scores"][0]["metrics"]["f1"][""]["de"]


def test_an_oracle_is_the_best_checkpoint_of_the_same_run(results):
    """It is chosen by the very sentences of the test here, so that its test score is at least the
    last checkpoint's, and its dev score.
    """
    gains = []
    for cell, result in results:
        if cell.part == "best":
            (last,) = [r for one, r in results if (one.part, one.seed) == ("pos", cell.seed)]
            phase, plain = result["training"][-1], last["training"][-1]
            assert phase["steps"] == plain["steps"] == 16
            assert "best_step" not in plain and phase["best_step"] in range(2, 17, 2)
            assert german(result) == pytest.approx(phase["dev"]["udpos"]["score"], abs=1e-6)
            if phase["best_step"] == 16:
                assert result["scores"] == last["scores"]
            gains.append(german(result) - german(last))
    assert len(gains) == 2 and min(gains) >= 0 < max(gains)


def test_an_oracle_has_a_name_of_its_own_that_hangs_on_its_dev_set(root, tmp_path):
    grid = read_grid(root / "grid.toml")
    names = {one.cell.part: one for one in plan(grid, root / "data", root / "models")}
    assert "dev" not in names["pos"].identity["data_hash"]
    assert "dev_languages" not in json.dumps(names["pos"].identity)
    assert len(names["best"].identity["data_hash"]["dev"]) == 1
    shutil.copytree(root / "data", tmp_path / "data")
    dev = tmp_path / "data/udpos/dev-de.tsv"
    dev.write_text(dev.read_text() + "Hund\tNOUN\n\n")
    changed = {one.cell.part: one for one in plan(grid, tmp_path / "data", root / "models")}
    assert changed["pos"].name == names["pos"].name
    assert changed["best"].name != names["best"].name


def test_a_cell_hangs_on_the_dev_set_of_its_own_language_where_that_chooses_its_weights(
    root, tmp_path
):
    path = tmp_path / "grid.toml"
    path.write_text(HEAD + LAST + ORACLE.replace('dev_languages = ["de"]\n', ""))
    grid = read_grid(path)
    message = r"udpos en \(8\): patience needs dev examples, and no source has"
    with pytest.raises(UsageError, match=message):
        plan(grid, root / "data", root / "models")

    def names(sentences):
        data = tmp_path / f"data-{sentences}"
        shutil.copytree(root / "data", data)
        (data / "udpos/dev-en.tsv").write_text("dog\tNOUN\n\n" * sentences)
        return {one.cell.part: one.name for one in plan(grid, data, root / "models")}

    few, many = names(3), names(4)
    assert few["pos"] == many["pos"] and few["best"] != many["best"]


def test_a_dev_language_without_a_dev_set_is_refused_before_anything_is_trained(root, tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(HEAD + ORACLE.replace('["de"]', '["de", "zh"]'))
    message = "dev_languages: udpos has no dev split beside what it trains on in zh; legal: de"
    with pytest.raises(UsageError, match=message):
        plan(read_grid(path), root / "data", root / "models")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("patience = 100\n", "", "choose the best weights, which needs patience; set it, or leave"),
        ('["de"]', '["de", "de"]', "name a language twice; name each once"),
        ('["de"]', '["xx"]', "'xx'"),
        ('["de"]', '"de"', "dev_languages"),
    ],
)
def test_dev_languages_that_choose_nothing_are_refused(tmp_path, old, new, message):
    path = tmp_path / "grid.toml"
    assert old in ORACLE
    path.write_text(HEAD + ORACLE.replace(old, new))
    with pytest.raises(UsageError, match=message) as error:
        read_grid(path)
    assert "\n" not in str(error.value)


def test_the_dev_examples_of_a_phase_are_in_its_dev_languages(root):
    source = Source("udpos", ("en",), 8)
    phase = Phase("1-pos", "target", (source,), patience=1, dev_languages=("de",))
    material = Reader(root / "data", 1).material(settled(phase))
    (dev,) = material.dev
    assert [*dev.languages] == ["de"] and len(dev) == 12
    assert [*material.sources[0].languages] == ["en"]
    plain = two_phases(root)
    assert "dev_languages" not in json.dumps(as_mapping(plain))
    chosen = replace(plain.phases[1], patience=1, dev_languages=("de",))
    assert as_mapping(chosen)["dev_languages"] == ("de",)


def test_a_bundle_has_the_dev_sets_of_oracles(root, tmp_path):
    (tmp_path / "last.toml").write_text(HEAD + LAST)
    count = {
        path: pack(path, root / "data", tmp_path / f"{path.stem}.tar.xz", root / "models")["files"]
        for path in (tmp_path / "last.toml", root / "grid.toml")
    }
    last, both = count.values()
    assert both == last + 1


@pytest.fixture(scope="module")
def sizes(request):
    return read_grid(request.config.rootpath / "studies" / "intermediate-sizes.toml")


def test_an_oracle_stands_beside_the_last_checkpoint(sizes):
    """The shipped grid: oracles are rows of the test with as many sentences, and of no other."""
    (found,) = contrasts([sizes], [made(cell) for cell in sizes.cells])
    compared = {one["title"]: one["arms"] for one in found["all runs"]["comparisons"]}
    assert [*compared] == ["pos-all", "names-all", "pos-5000", "pos-1000"]
    sources = ["none", "en", "zh", "ar"]
    assert [*compared["pos-5000"]] == [*sources, *(f"{one} oracle" for one in sources)]
    assert [*compared["pos-all"]] == sources
    names = [one["name"] for one in found["all runs"]["contrasts"]]
    assert {"en oracle - en", "zh oracle - zh"} <= {*names}
    primary = [one for one in found["all runs"]["contrasts"] if one["primary"]]
    assert [one["averages"]["tasks"]["tasks"] for one in primary] == [
        ["pos-all: udpos", "names-all: panx"]
    ] * 2
    lines = [*contrast_lines([found])]
    assert sum(line.startswith("| en oracle | 3 |") for line in lines) == 1
