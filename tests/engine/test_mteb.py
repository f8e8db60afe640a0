"""MTEB's own tasks on local data: scores do not depend on the batch size."""

import numpy as np
import pytest
from stacks import save_stack

from xtremely.engine.adapters import MtebEncoder
from xtremely.engine.runtime import Engine
from xtremely.eval.data.readers import read_lines
from xtremely.eval.tasks.xtreme.mini import FOLDER as MINI

mteb = pytest.importorskip("mteb")
DE, EN = (read_lines(MINI / f"{code}.txt") for code in ("de", "en"))


def described(name, kind, score):
    return mteb.TaskMetadata(
        name=name,
        description="Sentence pairs of the mini suite.",
        dataset={"path": "mini", "revision": "1"},
        type=kind,
        eval_splits=["test"],
        eval_langs=["deu-Latn", "eng-Latn"],
        main_score=score,
    )


def bitext_mining():
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskBitextMining

    class Mining(AbsTaskBitextMining):
        metadata = described("MiniMining", "BitextMining", "f1")

        def load_data(self, **_):
            sides = {"sentence1": DE, "sentence2": EN}
            self.dataset = DatasetDict(test=Dataset.from_dict(sides))
            self.data_loaded = True

    return Mining()


def retrieval():
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval

    class Retrieval(AbsTaskRetrieval):
        metadata = described("MiniRetrieval", "Retrieval", "ndcg_at_10")

        def load_data(self, **_):
            def rows(mark, texts):
                named = [{"id": f"{mark}{n}", "text": text} for n, text in enumerate(texts)]
                return Dataset.from_list(named)

            self.dataset = {
                "default": {
                    "test": {
                        "queries": rows("q", DE),
                        "corpus": rows("d", EN),
                        "relevant_docs": {f"q{n}": {f"d{n}": 1} for n in range(len(DE))},
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return Retrieval()


def scores(model, task, batch_size):
    result = mteb.evaluate(
        model,
        task,
        cache=None,
        co2_tracker=False,
        show_progress_bar=False,
        encode_kwargs={"batch_size": batch_size},
    )
    (found,) = result.task_results[0].scores["test"]
    return {name: value for name, value in found.items() if isinstance(value, float)}


@pytest.mark.oracle
@pytest.mark.parametrize("task", [bitext_mining, retrieval])
def test_scores_do_not_depend_on_the_batch_size(tiny_bert, tmp_path, task):
    folder = save_stack(tiny_bert, tmp_path / "model", "cls, Dense")
    model = MtebEncoder(Engine.load(str(folder)))
    first = scores(model, task(), 1)
    assert 0 < first["main_score"] < 1  # some pairs are found, others are not
    assert first == scores(model, task(), 7) == scores(model, task(), 64)


@pytest.mark.oracle
def test_queries_and_documents_of_retrieval_get_their_own_prompts(e5, monkeypatch):
    seen = []
    encode = Engine.tokens

    def noted(self, texts, *, prompt, **options):
        seen.append((prompt, len(texts)))
        return encode(self, texts, prompt=prompt, **options)

    monkeypatch.setattr(Engine, "tokens", noted)
    found = scores(MtebEncoder(e5), retrieval(), 7)
    assert sorted(seen) == [("passage: ", len(EN)), ("query: ", len(DE))]
    de, en = e5.embed(DE, prompt="query: "), e5.embed(EN, prompt="passage: ")
    assert found["hit_rate_at_1"] == np.mean((de @ en.T).argmax(1) == np.arange(len(DE)))
