"""Recipes: what is read, what is refused and where, what is filled in, how sources are mixed."""

import pytest

from xtremely.eval.training import phases
from xtremely.eval.training.flags import recipe_of
from xtremely.eval.training.recipe import Mixing, Phase, Source, read_recipe, recipe_from, settled
from xtremely.kernels.guard import InputError, UsageError

TEXT = """\
model = "m"
seed = 7

[[phase]]
kind = "intermediate"
mixing = {kind = "capped", cap = 100}
[[phase.source]]
task = "snli"
languages = ["en"]
split = "dev"
[[phase.source]]
task = "ocnli"
languages = ["zh"]

[[phase]]
name = "tags"
kind = "target"
epochs = 3
[[phase.source]]
task = "udpos"
languages = ["en", "zh"]
budget = 2001
"""


def test_a_recipe_is_read_and_filled_with_published_settings(write):
    recipe = read_recipe(write("r.toml", TEXT))
    assert (recipe.model, recipe.seed, recipe.freeze_embeddings) == ("m", 7, True)
    first, second = recipe.phases
    assert (first.name, second.name) == ("1-intermediate", "tags")
    assert first.sources[0] == Source("snli", ("en",), split="dev")
    assert (first.epochs, first.learning_rate, first.max_length) == (5.0, 2e-5, 128)
    assert (second.epochs, second.mixing) == (3.0, Mixing())
    assert second.sources[0].sizes() == {"en": 1001, "zh": 1000}
    qa = settled(Phase("qa", "target", (Source("squad", ("en",)),)))
    assert (qa.epochs, qa.learning_rate, qa.warmup, qa.weight_decay) == (3.0, 3e-5, 500.0, 1e-4)
    assert qa.max_length == 384


def test_a_mixing_can_be_named_by_its_kind_alone(write):
    text = TEXT.replace('{kind = "capped", cap = 100}', '"uniform"')
    assert read_recipe(write("r.toml", text)).phases[0].mixing == Mixing("uniform")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("seed", "sead", "r.toml:2: unknown key 'sead'; did you mean 'seed'"),
        (
            "budget",
            "budgte",
            "r.toml:22: unknown key 'phase[1].source[0].budgte'; did you mean 'budget'",
        ),
        (
            "split",
            "splitt",
            "r.toml:10: unknown key 'phase[0].source[0].splitt'; did you mean 'split'",
        ),
        ("epochs", "epoch", "r.toml:18: unknown key 'phase[1].epoch'; did you mean 'epochs'"),
        ("cap =", "kap =", "r.toml:6: unknown key 'phase[0].mixing.kap'; did you mean 'cap'"),
        (
            "epochs = 3",
            'epochs = "3"',
            "r.toml:18: 'phase[1].epochs' is '3'; legal: a valid number",
        ),
        ("seed = 7", "seed = 7.5", "r.toml:2: 'seed' is 7.5; legal: a valid integer"),
        (
            '["en", "zh"]',
            '"en"',
            "r.toml:21: 'phase[1].source[0].languages' is 'en'; legal: a valid array",
        ),
        (
            'task = "udpos"\n',
            "",
            "r.toml:19: 'phase[1].source[0].task' is missing; it has languages, budget",
        ),
    ],
)
def test_what_a_recipe_does_not_have_is_named_with_its_line(write, old, new, complaint):
    path = write("r.toml", TEXT.replace(old, new))
    with pytest.raises(UsageError) as error:
        read_recipe(path)
    assert f"{path.parent}/{complaint}" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"udpos"', '"udpso"', "unknown task 'udpso'; did you mean 'udpos'"),
        ('"udpos"', '"tatoeba"', "nothing is trained on it"),
        ('["zh"]', '["zz"]', "unknown language of phase '1-intermediate', source 'ocnli'"),
        ('["zh"]', "[]", "no languages; legal: zh"),
        ('"dev"', '"devv"', "unknown split of phase '1-intermediate', source 'snli'"),
        ("budget = 2001", "budget = 1", "budget is 1; legal: a finite number, 2 or more"),
        ("budget", "examples = 3\nbudget", "examples (of every language) or a budget"),
        ('"target"', '"targett"', "did you mean 'target'"),
        ('"target"', '"mlm"', "a phase of kind 'mlm' learns from the task 'mlm' alone"),
        (
            "epochs = 3",
            "epochs = 0",
            "r.toml:18: phase 'tags': epochs is 0.0; legal: a finite number, above 0",
        ),
        ("epochs = 3", "batch_size = 0", "batch_size is 0; legal: a finite number, 1 or more"),
        ('"capped"', '"caped"', "did you mean 'capped'"),
        ('"capped", cap = 100', '"fixed", weights = [1.0]', "1 weights for 2 sources"),
        ('name = "tags"', 'name = "../x"', "a name is a folder's"),
        ('name = "tags"', 'name = "1-intermediate"', "two phases are called"),
        (
            "seed = 7",
            'precision = "bf61"',
            "r.toml:2: unknown precision 'bf61'; did you mean",
        ),
        ('["en", "zh"]', '["en", "en"]', "udpos in 'en' is given twice, which would train on the"),
        (
            '"ocnli"\nlanguages = ["zh"]',
            '"snli"\nlanguages = ["en"]\nsplit = "dev"',
            "phase '1-intermediate': snli in 'en' is given twice",
        ),
        (
            "seed = 7",
            "seed = -1",
            "r.toml:2: seed is -1; legal: a finite number, 0 or more",
        ),
        ("seed = 7", f"seed = {2**70}", f"seed is {2**70}; legal"),
        ("seed = 7", f"seed = {10**1000}", "seed is a number of more than 30 digits; legal"),
        ("epochs = 3", "epochs = nan", "r.toml:18: phase 'tags': epochs is nan; legal: a finite"),
        ("epochs = 3", "epochs = inf", "epochs is inf; legal"),
        ("epochs = 3", "epochs = 1e9", "epochs is 1000000000.0; legal: a finite number, above 0"),
        ("epochs = 3", "warmup = nan", "warmup is nan; legal: a finite number, 0 or more"),
        ("epochs = 3", "warmup = -0.1", "warmup is -0.1; legal"),
        ("epochs = 3", "weight_decay = inf", "weight_decay is inf; legal"),
        (
            "epochs = 3",
            "weight_decay = 1e30",
            "weight_decay is 1e+30; legal: a finite number, 0 or more, at most 1",
        ),
        ("epochs = 3", "learning_rate = nan", "learning_rate is nan; legal"),
        ("epochs = 3", "learning_rate = 0", "learning_rate is 0.0; legal: a finite number, above"),
        ("epochs = 3", f"batch_size = {10**30}", "batch_size is a number of more than 30 digits"),
        ("epochs = 3", "batch_size = 65537", "batch_size is 65537; legal"),
        ("epochs = 3", "accumulation = 0", "r.toml:18: phase 'tags': accumulation is 0; legal"),
        ("epochs = 3", "patience = 0", "patience is 0; legal"),
        ("epochs = 3", "evaluate_steps = 0", "evaluate_steps is 0; legal"),
        ("epochs = 3", "dev_examples = 0", "dev_examples is 0; legal"),
        ("epochs = 3", "max_length = 7", "max_length is 7; legal"),
        (
            "epochs = 3",
            "max_steps = 100_000_000",
            "max_steps x accumulation x batch_size is 3200000000; legal",
        ),
        ("seed = 7", 'precision = "fp8"', "r.toml:2: unknown precision 'fp8'"),
        ("cap = 100", "cap = 0", "cap is 0; legal: a finite number, 1 or more"),
        ("cap = 100", "temperature = nan", "temperature is nan; legal"),
        ("cap = 100", "temperature = 0", "temperature is 0.0; legal"),
        ("cap = 100", "weights = [nan, 1]", "weights is nan; legal"),
        ("cap = 100", "weights = [0, 1]", "weights is 0.0; legal"),
        ('split = "dev"', "examples = 0", "source 'snli': examples is 0; legal"),
        ("budget = 2001", f"budget = -{10**30}", "budget is a number of more than 30 digits"),
        ('name = "tags"', 'name = "' + "x" * 101 + '"', "at most 100 letters"),
        ('name = "tags"', 'name = ".tags"', "a name is a folder's"),
        ('name = "tags"', 'name = ""', "a name is a folder's"),
        ('model = "m"', 'model = " "', "the model has no name"),
        ("seed = 7", "seed = true", "r.toml:2: 'seed' is True; legal: a valid integer"),
        (
            "epochs = 3",
            "epochs = [3]",
            "r.toml:18: 'phase[1].epochs' is [3]; legal: a valid number",
        ),
        ('"udpos"', "{}", "r.toml:20: 'phase[1].source[0].task' is {}; legal: a valid string"),
    ],
)
def test_what_cannot_be_trained(write, old, new, complaint):
    with pytest.raises(UsageError) as error:
        read_recipe(write("r.toml", TEXT.replace(old, new)))
    assert complaint in str(error.value)


def test_a_file_that_is_no_toml_and_a_recipe_without_phases(write):
    with pytest.raises(InputError, match="not TOML"):
        read_recipe(write("r.toml", "model = "))
    for text, complaint in (
        ("x = " + "[" * 100_000, "r.toml: nested too deeply"),
        ("x = " + "9" * 5000, "r.toml: a number is too long"),
        (b"\xff", "r.toml:1: not UTF-8"),
        ("", "r.toml: 'model' is missing"),
        ("model = 1979-05-27", "r.toml: model: datetime.date(1979, 5, 27) is a date or time"),
        ("phase = 5\nmodel = 'm'", "r.toml:1: 'phase' is 5; legal: a valid array"),
        ("phase = [5]\nmodel = 'm'", "r.toml:1: 'phase[0]' is 5; legal"),
        ("phase = [{source = 5, kind = 'mlm'}]\nmodel = 'm'", "'phase[0].source' is 5; legal"),
    ):
        with pytest.raises(InputError) as error:
            read_recipe(write("r.toml", text))
        assert complaint in str(error.value)
    with pytest.raises(InputError, match="none.toml: cannot be read"):
        read_recipe(write("r.toml", TEXT).with_name("none.toml"))
    with pytest.raises(UsageError, match="has at least one"):
        recipe_from({"model": "m", "phase": []})


def test_flags_say_the_same_as_a_file(write):
    each = {"epochs": 2.0, "learning_rate": 1e-4}
    flags = recipe_of(
        None, ["snli:en:all:dev+ocnli:zh", "udpos:en,zh:1000"], {"model": "m", "seed": 7}, each
    )
    first, second = flags.phases
    assert (first.kind, second.kind) == ("intermediate", "target")
    assert first.sources == (Source("snli", ("en",), split="dev"), Source("ocnli", ("zh",)))
    assert second.sources == (Source("udpos", ("en", "zh"), 1000),)
    assert {phase.epochs for phase in flags.phases} == {2.0}
    changed = recipe_of(write("r.toml", TEXT), [], {"seed": 9}, {"batch_size": 8})
    assert changed.seed == 9 and {phase.batch_size for phase in changed.phases} == {8}
    assert recipe_of(None, ["mlm:en,zh", "udpos:en"], {"model": "m"}, {}).phases[0].kind == "mlm"


def test_the_last_of_equal_phases_is_the_target():
    recipe = recipe_of(None, ["udpos:en", "udpos:en"], {"model": "m"}, {})
    assert [phase.kind for phase in recipe.phases] == ["intermediate", "target"]


@pytest.mark.parametrize(
    "spec",
    ["udpos", "udpos:en:many", "udpos:en:5:train:x", f"udpos:en:{'9' * 5000}", "udpos:en:-1"],
)
def test_a_flag_of_another_form(spec):
    with pytest.raises(UsageError, match="form"):
        recipe_of(None, [spec], {"model": "m"}, {})
    with pytest.raises(UsageError, match="give a recipe's file, or --phase"):
        recipe_of(None, [], {"model": "m"}, {})


@pytest.mark.parametrize(
    ("mixing", "shares"),
    [
        (Mixing(), [0.1, 0.9]),
        (Mixing("capped", cap=300), [0.25, 0.75]),
        (Mixing("capped", cap=100), [0.5, 0.5]),
        (Mixing("temperature", temperature=2.0), [0.25, 0.75]),
        (Mixing("temperature", temperature=float("inf")), [0.5, 0.5]),
        (Mixing("temperature", temperature=0.001), [0.0, 1.0]),
        (Mixing("temperature", temperature=1e-320), [0.0, 1.0]),
        (Mixing("uniform"), [0.5, 0.5]),
        (Mixing("fixed", weights=(1.0, 4.0)), [0.2, 0.8]),
    ],
)
def test_shares_of_sources(mixing, shares):
    assert mixing.shares([100, 900]) == pytest.approx(shares)


def test_an_infinite_temperature_is_recorded_as_what_it_is():
    """JSON has no infinity: a training's record could not be written."""
    source = (Source("udpos", ("en",)),)
    hot = Mixing("temperature", temperature=float("inf"))
    assert settled(Phase("a", "target", source, hot)).mixing == Mixing("uniform")
    unused = Mixing("capped", cap=5, temperature=float("inf"))
    assert settled(Phase("a", "target", source, unused)).mixing == Mixing("capped", cap=5)


def test_the_command_line_names_the_trouble(xtremely, write, tmp_path):
    path = write("r.toml", TEXT.replace("epochs", "epoch"))
    code, _, err = xtremely("train", path, "--out", tmp_path / "o", "--data-root", tmp_path)
    assert code == 2 and "r.toml:18: unknown key 'phase[1].epoch'" in err


OPTIONS = [
    ("--epochs", "nan", "epochs is nan"),
    ("--epochs", "-1", "epochs is -1.0"),
    ("--seed", "-1", "seed is -1"),
    ("--seed", str(2**70), f"seed is {2**70}"),
    ("--batch-size", str(10**30), "batch_size is a number of more than 30 digits"),
    ("--learning-rate", "inf", "learning_rate is inf"),
    ("--max-steps", "0", "max_steps is 0"),
    ("--accumulation", "0", "accumulation is 0"),
    ("--patience", "0", "patience is 0"),
    ("--save-steps", "0", "--save-steps is 0"),
    ("--save-steps", str(10**30), "--save-steps is a number of more than 30 digits"),
    ("--precision", "bf61", "unknown precision 'bf61'; did you mean 'bf16'"),
    ("--model", "", "--model is empty"),
    ("--device", "gpu", "device 'gpu' is not known"),
]


@pytest.mark.parametrize(("option", "value", "complaint"), OPTIONS)
@pytest.mark.parametrize("from_file", [False, True])
def test_an_option_out_of_range_is_refused_before_any_work(
    xtremely, write, tmp_path, monkeypatch, option, value, complaint, from_file
):
    monkeypatch.setattr(phases, "Reader", None)
    what = [write("r.toml", TEXT)] if from_file else ["--phase", "udpos:en"]
    given = ("--out", tmp_path / "o", "--data-root", tmp_path, option, value)
    code, _, err = xtremely("train", *what, *given)
    assert (code, complaint in err, err.count("\n")) == (2, True, 1)


def test_out_is_not_the_current_folder(xtremely, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    what = ("train", "--phase", "udpos:en", "--data-root", tmp_path)
    code, _, err = xtremely(*what, "--out", ".")
    assert (code, "--out is empty or the current folder" in err) == (1, True)
    assert not [*tmp_path.iterdir()]
