"""Fixtures of the evaluation's tests."""

import io
import sys

import pytest
from report_pages import written

from xtremely.eval.cli.main import main


@pytest.fixture
def xtremely(capsys, monkeypatch):
    """Runs the command line in this process: arguments in; exit code, stdout, stderr out."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
            sys.exit(0)
        streams = capsys.readouterr()
        return stop.value.code or 0, streams.out, streams.err

    return run


@pytest.fixture
def write(tmp_path):
    """Writes a file under the test's folder, gives its path."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def parquet(tmp_path):
    """Writes rows as a dataset repository on the hub keeps them: a folder a configuration."""

    def parquet(config, split, rows, features=None, root=tmp_path):
        from datasets import Dataset

        folder = root / config
        folder.mkdir(exist_ok=True)
        path = folder / f"{split}-00000-of-00001.parquet"
        Dataset.from_list(rows, features=features).to_parquet(str(path))
        return path

    return parquet


@pytest.fixture
def hub(tmp_path_factory, monkeypatch):
    """A hub on this machine, which this process takes for the real one."""
    from hub_server import reached, served

    folder = tmp_path_factory.mktemp("hub")
    with served() as there, reached(there, folder, monkeypatch):
        yield there


@pytest.fixture(scope="session")
def small_study(tmp_path_factory, make_tiny):
    """A study's folder: ``grid.toml``, ``data`` in three languages, a model in ``models/tiny``."""
    root = tmp_path_factory.mktemp("study")
    (root / "grid.toml").write_text(GRID)
    (root / "models").mkdir()
    make_tiny("bert").rename(root / "models" / "tiny")
    data = root / "data"
    for folder in ("udpos", "xnli", "tatoeba"):
        (data / folder).mkdir(parents=True)
    for code, words in WORDS.items():
        sentences = [list(zip(words, TAGS, strict=True))[k % 5 :] for k in range(12)]
        text = "".join("".join(f"{w}\t{t}\n" for w, t in s) + "\n" for s in sentences)
        for split in ("train", "test"):
            (data / "udpos" / f"{split}-{code}.tsv").write_text(text)
        pairs = [(" ".join(words[k:]), " ".join(words[: k + 1]), XNLI[k % 3]) for k in range(9)]
        for split, rows in (("dev", pairs), ("test", pairs[::-1])):
            if code != "zh":
                lines = "".join("\t".join(row) + "\n" for row in rows)
                (data / "xnli" / f"{split}-{code}.tsv").write_text(lines)
    for code, name in (("de", "deu"), ("en", "eng")):
        lines = "".join(f"{' '.join(WORDS[code][k:])}\n" for k in range(8))
        (data / "tatoeba" / f"tatoeba.deu-eng.{name}").write_text(lines)
    return root


WORDS = {
    "en": ["the", "cat", "sees", "a", "dog", ".", "the", "dog", "sleeps", "here"],
    "de": ["die", "Katze", "sieht", "den", "Hund", ".", "der", "Hund", "ruht", "hier"],
    "zh": ["猫", "看", "见", "狗", "。", "狗", "在", "这", "里", "睡"],
}
TAGS = ["DET", "NOUN", "VERB", "DET", "NOUN", "PUNCT", "DET", "NOUN", "VERB", "ADV"]
XNLI = ("contradiction", "entailment", "neutral")
GRID = """
name = "small"
models = ["tiny"]
seeds = [1, 2]

[[part]]
name = "pos"
sources = ["en", "zh"]
[[part.train]]
task = "udpos"
examples = 8
epochs = 1
batch_size = 4
[[part.test]]
task = "udpos"
limit = 4

[[part]]
name = "nli"
sources = ["none", "de"]
[[part.train]]
task = "xnli"
split = "dev"
examples = 6
learning_rate = 0.05
epochs = 1
[[part.test]]
task = "xnli"
[[part.test]]
task = "tatoeba"
languages = ["de"]
layers = "all"
"""


@pytest.fixture
def page(tmp_path):
    """Writes a report of records (and of what is missing), gives its page."""

    def page(records, missing=()):
        return written(tmp_path, records, missing)

    return page
