"""Which dev examples may choose a phase's weights."""

from dataclasses import replace

import pytest

from xtremely.eval.training.data import Reader
from xtremely.eval.training.recipe import Phase, Source, settled
from xtremely.kernels.guard import UsageError

LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "xnli").mkdir()
    for name in ("train-en", "dev-en", "dev-de"):
        rows = [f"{name} {n}\tb\t{LABELS[n % 3]}\n" for n in range(9)]
        (tmp_path / "xnli" / f"{name}.tsv").write_text("".join(rows))
    return tmp_path


def test_a_split_that_another_source_trains_on_chooses_no_weights(root):
    """XNLI's dev set says the same in every language, so German dev trains on English dev."""
    sources = (Source("xnli", ("en",)), Source("xnli", ("de",), split="dev"))
    phase = Phase("nli", "target", sources, epochs=1.0, batch_size=4)
    reader = Reader(root, seed=1)
    (alone,) = reader.material(settled(replace(phase, sources=sources[:1]))).dev
    assert [*alone.languages] == ["en"]
    assert reader.material(settled(phase)).dev == []
    with pytest.raises(UsageError, match="patience needs dev examples, and no source has"):
        reader.material(settled(replace(phase, patience=1)))


def test_dev_examples_are_part_of_the_data_where_they_choose_the_weights(root):
    phase = Phase("nli", "target", (Source("xnli", ("en",)),), epochs=1.0, batch_size=4)

    def hashes():
        phases = (replace(phase, patience=patience) for patience in (None, 1))
        return [Reader(root, seed=1).material(settled(one)).data_hash for one in phases]

    plain, chosen = hashes()
    with (root / "xnli" / "dev-en.tsv").open("a") as file:
        file.write("more\tb\tneutral\n")
    assert hashes()[0] == plain and hashes()[1] not in (chosen, plain)
