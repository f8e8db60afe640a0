"""Every help text is a sentence that can be read alone, and names what is legal."""

import re

import pytest
import typer

from xtremely.engine.backends.onnx.export import BOUNDS
from xtremely.engine.backends.onnx.session import PROVIDERS
from xtremely.engine.backends.select import BACKENDS
from xtremely.engine.models.encoder import PRECISIONS
from xtremely.engine.runtime import ENGINE_POOLINGS
from xtremely.eval.cli.exporting import HEADS
from xtremely.eval.cli.main import app
from xtremely.eval.mining.gold import TUNED
from xtremely.eval.run.planning import CENTRINGS, PROFILES
from xtremely.eval.training import recipe
from xtremely.kernels.inspection import TARGETS
from xtremely.kernels.spec import TYPES
from xtremely.retrieval.margin import MARGINS
from xtremely.retrieval.mining import RETRIEVALS
from xtremely.retrieval.vectors import STORED_DTYPES

# Words that only this project uses so, or that say nothing without what stands around them.
PRIVATE = re.compile(r"\b(cells?|piles?|effort|of everything|never degrades|goes on|looks at)\b")
LEGAL = {
    "encode --backend": (*BACKENDS, *PROVIDERS),
    "encode --precision": PRECISIONS,
    "encode --pooling": ENGINE_POOLINGS,
    "eval --pooling": ENGINE_POOLINGS,
    "eval --centring": CENTRINGS,
    "eval --profile": PROFILES,
    "export --precision": BOUNDS,
    "export --head": HEADS,
    "mine --margin": MARGINS,
    "mine --retrieval": RETRIEVALS,
    "mine --storage": STORED_DTYPES,
    "mine --threshold": [TUNED],
    "train --precision": recipe.PRECISIONS,
    "kernels --target": TARGETS,
    "kernels tune --precision": TYPES.values(),
}
ENCODING = ("encode", "eval", "index build", "index search", "mine")


def walked(command, path=()):
    """Every command with its path."""
    yield " ".join(path), command
    for name, below in getattr(command, "commands", {}).items():
        yield from walked(below, (*path, name))


COMMANDS = dict(walked(typer.main.get_command(app)))
TEXTS = {name or "xtremely": command.help for name, command in COMMANDS.items()} | {
    f"{name} {parameter.opts[0]}".strip(): parameter.help
    for name, command in COMMANDS.items()
    for parameter in command.params
    if "completion" not in parameter.opts[0]
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_help_text_is_a_sentence_in_plain_words(name):
    text = TEXTS[name]
    assert text, f"{name} has no help"
    assert re.match(r"[A-Z]", text) and text.endswith(".")
    assert len(text.split()) >= 4
    assert not PRIVATE.search(text.lower())


@pytest.mark.parametrize("name", LEGAL)
def test_a_help_text_names_every_legal_value(name):
    words = set(re.findall(r"[\w-]+", TEXTS[name]))
    assert not set(LEGAL[name]) - words


def test_commands_that_run_a_model_take_and_describe_the_same_options():
    for option in ("--backend", "--precision", "--prompt", "--quiet"):
        assert len({TEXTS[f"{command} {option}"] for command in ENCODING}) == 1, option
    for option in ("--model", "--device"):
        (one,) = {TEXTS[f"{command} {option}"] for command in ENCODING if command != "eval"}
        assert TEXTS[f"eval {option}"].startswith(one.rstrip("."))  # eval takes several, too
    for option in ("--layer", "--pooling"):
        shared = {TEXTS[f"{name} {option}"] for name in (*ENCODING, "export") if name != "eval"}
        assert len(shared) == 1, option


def test_defaults_that_a_help_text_states_are_those_of_recipes():
    phase = recipe.Phase("p", "target", ())
    assert f"(default: {phase.batch_size})" in TEXTS["train --batch-size"]
    assert f"(default: {phase.accumulation})" in TEXTS["train --accumulation"]
    whole = recipe.Recipe("m", ())
    assert f"(default: {whole.seed})" in TEXTS["train --seed"]
    assert f"(default: {whole.precision})" in TEXTS["train --precision"]
    assert whole.freeze_embeddings and "(default: yes)" in TEXTS["train --freeze-embeddings"]
    assert whole.prune_vocabulary and "(default: yes)" in TEXTS["train --prune-vocabulary"]
