"""Labels dealt out anew: the control that sees the same texts and learns no task."""

from collections import Counter

import numpy as np
import pytest

from xtremely.eval.data.examples import Choices, Tagged, TextPairs
from xtremely.eval.tasks.task import find_task
from xtremely.eval.training.data import Reader, shuffled
from xtremely.eval.training.recipe import Phase, Source

LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture
def root(tmp_path):
    """XNLI's form in two languages, the second half of it in a test set, which is looked at."""
    (tmp_path / "xnli").mkdir()
    for code in ("en", "de"):
        for split, start in (("dev", 0), ("test", 60)):
            rows = [f"{n}\t{code}\t{LABELS[n % 3]}\n" for n in range(start, start + 60)]
            (tmp_path / "xnli" / f"{split}-{code}.tsv").write_text("".join(rows))
    return tmp_path


def material(root, *codes, seed=1, shuffle=True, **source):
    sources = (Source("xnli", codes, split="test", **source),)
    return Reader(root, seed).material(Phase("p", "intermediate", sources, shuffle_labels=shuffle))


def pairing(examples):
    return dict(zip(examples.first, examples.labels, strict=True))


def test_as_many_of_each_label_on_other_texts(root):
    true, dealt = (
        material(root, "en", shuffle=on, budget=60).sources[0].languages["en"]
        for on in (False, True)
    )
    assert dealt.first == true.first and dealt.second == true.second
    assert Counter(dealt.labels) == Counter(true.labels) == dict.fromkeys(LABELS, 20)
    kept = sum(a == b for a, b in zip(dealt.labels, true.labels, strict=True))
    assert 8 <= kept <= 32, "a third of 60 stay by chance, with a standard deviation of 3.7"


def test_translations_get_the_same_labels_and_every_seed_others(root):
    both = material(root, "en", "de", examples=60).sources[0].languages
    assert pairing(both["en"]) == pairing(both["de"])
    (other,) = material(root, "en", seed=2, examples=60).sources[0].languages.values()
    assert pairing(other) != pairing(both["en"])
    again = material(root, "en", examples=60).sources[0].languages["en"]
    assert again.labels == both["en"].labels


def test_each_language_keeps_its_own_labels(root):
    path = root / "xnli" / "test-de.tsv"
    path.write_text(path.read_text().replace("neutral", "entailment"))
    found = material(root, "en", "de", budget=80).sources[0].languages
    true = material(root, "en", "de", budget=80, shuffle=False).sources[0].languages
    for code in ("en", "de"):
        assert Counter(found[code].labels) == Counter(true[code].labels)
    assert "neutral" not in found["de"].labels


def test_dev_examples_keep_their_labels_and_data_that_differ_have_another_hash(root):
    dealt, true = material(root, "en"), material(root, "en", shuffle=False)
    ((dev,), (known,)) = ([*one.dev[0].languages.values()] for one in (dealt, true))
    assert dev.labels == known.labels and len(dev) == 60
    assert dealt.data_hash != true.data_hash


def test_words_and_options():
    tagged = Tagged([["a", "b", "c"], ["d"]] * 9, [["X", "Y", "Y"], ["Z"]] * 9)
    dealt = shuffled(find_task("udpos"), tagged, 1)
    assert [len(one) for one in dealt.tags] == [3, 1] * 9 and dealt.tags != tagged.tags
    assert Counter(tag for one in dealt.tags for tag in one) == {"X": 9, "Y": 18, "Z": 9}
    choices = shuffled(
        find_task("xcopa"), Choices(["t"] * 9, [("a", "b")] * 9, [0, 0, 0, 0, 1, 1, 1, 1, 1]), 1
    )
    assert sorted(choices.answers) == [0] * 4 + [1] * 5
    assert choices.answers != sorted(choices.answers)


def test_an_order_of_its_own():
    """All of a set's examples are taken in an order that the seed decides. Dealing labels out in
    the same order would be a pattern.
    """
    names = [str(n) for n in range(50)]
    order = np.random.default_rng(3).permutation(50).tolist()
    dealt = shuffled(find_task("xnli"), TextPairs(names, names, names), 3)
    assert [int(one) for one in dealt.labels] != order
