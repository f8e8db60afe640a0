"""Against sentence-transformers on the same folders, and inside its and MTEB's own evaluators."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from xtremely.engine.adapters import MtebEncoder, SentenceEncoder
from xtremely.engine.hub.locate import locate
from xtremely.engine.runtime import Engine
from xtremely.eval.data.readers import read_lines
from xtremely.eval.tasks.xtreme.mini import FOLDER as MINI
from xtremely.kernels.guard import InputError
from xtremely.retrieval.margin import best_match, mutual_neighbours

TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
DENSE = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}


def load_peer(folder):
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def peer():
    return load_peer(locate("e5-small-4bit"))


@pytest.fixture(scope="module")
def encoder(e5):
    return SentenceEncoder(e5)


@pytest.fixture(scope="module")
def texts():
    """Many scripts and lengths; the last is beyond the model's 512 tokens, one is empty."""
    english = read_lines(MINI / "en.txt")
    lines = [line for path in sorted(MINI.glob("*.txt")) for line in read_lines(path)[:1]]
    return [*lines, *english[:10], "", "x", "  spaced\n\tout  ", " ".join(english)]


def agree(mine, theirs, atol=1e-4):
    assert type(mine) is type(theirs)
    if isinstance(mine, list):
        mine, theirs = torch.stack(mine), torch.stack(theirs)
    assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)


@pytest.mark.oracle
@pytest.mark.parametrize("options", [{}, {"prompt_name": "query"}, {"prompt": "foo: "}], ids=str)
def test_embeddings_are_sentence_transformers(encoder, peer, texts, options):
    # Small batches: it pads all of a batch to the longest.
    agree(encoder.encode(texts, **options), peer.encode(texts, batch_size=4, **options))


@pytest.mark.oracle
@pytest.mark.parametrize(
    "options",
    [
        {"prompt": "foo: ", "prompt_name": "query"},
        {"prompt": ""},
        {"normalize_embeddings": True},
        {"normalize_embeddings": False, "convert_to_tensor": True, "batch_size": 2},
        {"convert_to_numpy": False, "show_progress_bar": True},
        {"truncate_dim": 50},
        {"truncate_dim": 50, "normalize_embeddings": True, "device": "cpu", "pool": None},
    ],
    ids=str,
)
def test_options_mean_what_they_mean_there(encoder, peer, texts, options):
    agree(encoder.encode(texts[:3], **options), peer.encode(texts[:3], **options))


@pytest.mark.oracle
@pytest.mark.parametrize("convert", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}])
def test_one_string_is_one_vector(encoder, peer, convert):
    agree(encoder.encode("Ein Satz.", **convert), peer.encode("Ein Satz.", **convert))


@pytest.mark.oracle
def test_inputs_may_be_any_strings_in_a_row(encoder, peer):
    for inputs in (("a", "b"), np.array(["a", "b"])):
        agree(encoder.encode(inputs), peer.encode(inputs))
    assert encoder.encode([]).shape == (0, 384)
    assert len(peer.encode([])) == 0


@pytest.mark.oracle
def test_queries_and_documents_get_the_same_prompts(encoder, peer):
    texts = ["où est la gare ?", "la gare est au centre"]
    for method in ("encode_query", "encode_document"):
        for options in ({}, {"prompt_name": "passage"}, {"prompt": "bar "}):
            agree(
                getattr(encoder, method)(texts, **options), getattr(peer, method)(texts, **options)
            )


@pytest.mark.oracle
def test_declares_what_sentence_transformers_declares(encoder, peer):
    for name in (
        "prompts",
        "default_prompt_name",
        "max_seq_length",
        "similarity_fn_name",
        "device",
    ):
        assert getattr(encoder, name) == getattr(peer, name), name
    assert encoder.get_embedding_dimension() == peer.get_embedding_dimension()
    assert encoder.get_sentence_embedding_dimension() == 384


@pytest.mark.oracle
def test_similarities(encoder, peer):
    a, b = encoder.encode(["one", "two", "three"]), encoder.encode(["eins", "zwei", "drei"])
    agree(encoder.similarity(a, list(b[:2])), peer.similarity(a, list(b[:2])))
    agree(encoder.similarity_pairwise(a, b), peer.similarity_pairwise(a, b))


@pytest.fixture
def folder(tiny_bert, tmp_path):
    """A tiny model that differs from the packaged one in everything a folder can declare."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    documents = {
        "modules.json": [
            {**TRANSFORMER, "idx": 0, "name": "0"},
            {**POOLING, "idx": 1, "name": "1"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": 48, "pooling_mode_cls_token": True},
        "sentence_bert_config.json": {"max_seq_length": 20, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"search": "find "},
            "default_prompt_name": "search",
            "similarity_fn_name": "euclidean",
            "truncate_dim": 40,
        },
    }
    for name, value in documents.items():
        declare(folder, name, value)
    return folder


def declare(folder, name, value):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.oracle
def test_a_folders_declarations_count(folder, sentences):
    mine, theirs = SentenceEncoder(Engine.load(str(folder))), load_peer(folder)
    vectors = mine.encode(sentences)
    agree(vectors, theirs.encode(sentences))
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() > 0.1
    for options in ({"prompt": ""}, {"normalize_embeddings": True}, {"truncate_dim": 30}):
        agree(mine.encode(sentences, **options), theirs.encode(sentences, **options))
    agree(mine.encode_query(sentences), theirs.encode_query(sentences))
    agree(mine.similarity(vectors, vectors[:3]), theirs.similarity(vectors, vectors[:3]))
    for name in ("max_seq_length", "default_prompt_name", "truncate_dim", "similarity_fn_name"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert mine.get_embedding_dimension() == theirs.get_embedding_dimension() == 40


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("modules.json", [TRANSFORMER, POOLING, DENSE], "2_Dense/config.json: cannot be read"),
        ("modules.json", [TRANSFORMER], "a Transformer alone"),
        ("modules.json", {"no": "list"}, "legal: a valid array"),
        ("config_sentence_transformers.json", {"default_prompt_name": "q"}, "'q'; legal: document"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "maxsim"}, "similarity"),
    ],
)
def test_folders_beyond_the_engine_are_refused(folder, name, value, complaint):
    declare(folder, name, value)
    with pytest.raises(InputError, match=complaint):
        SentenceEncoder(Engine.load(str(folder)))


@pytest.mark.parametrize(
    "options",
    [
        {"output_value": None},
        {"precision": "int4"},
        {"device": "cuda"},
        {"pool": {"processes": []}},
        {"processing_kwargs": {}},
        {"prompt_name": "nonesuch"},
    ],
    ids=str,
)
def test_options_the_engine_lacks_are_refused(encoder, options):
    with pytest.raises(InputError, match=r"not supported|unknown prompt"):
        encoder.encode(["text"], **options)


@pytest.mark.parametrize("inputs", [["text", None], [["a", "b"]], {"text": "a"}])
def test_inputs_other_than_strings_are_refused(encoder, inputs):
    with pytest.raises(InputError, match="string"):
        encoder.encode(inputs)


@pytest.mark.oracle
def test_its_evaluators_give_the_same_scores(encoder, peer):
    from sentence_transformers.sentence_transformer import evaluation

    de, en = (read_lines(MINI / f"{code}.txt")[:24] for code in ("de", "en"))
    translation = evaluation.TranslationEvaluator(de, en, name="mini")
    found = evaluation.InformationRetrievalEvaluator(
        queries={f"q{i}": text for i, text in enumerate(de)},
        corpus={f"d{i}": text for i, text in enumerate(en)},
        relevant_docs={f"q{i}": {f"d{i}"} for i in range(len(de))},
    )
    assert translation(encoder) == translation(peer)
    assert found(encoder) == pytest.approx(found(peer))


@pytest.fixture
def bitext_task():
    """The mini suite's German and English as one of MTEB's bitext mining tasks."""
    mteb = pytest.importorskip("mteb")
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskBitextMining

    class MiniBitextMining(AbsTaskBitextMining):
        metadata = mteb.TaskMetadata(
            name="MiniBitextMining",
            description="Sentence pairs of the mini suite.",
            dataset={"path": "mini", "revision": "1"},
            type="BitextMining",
            eval_splits=["test"],
            eval_langs=["deu-Latn", "eng-Latn"],
            main_score="accuracy",
        )

        def load_data(self, **_):
            sides = {
                "sentence1": read_lines(MINI / "de.txt"),
                "sentence2": read_lines(MINI / "en.txt"),
            }
            self.dataset = DatasetDict(test=Dataset.from_dict(sides))
            self.data_loaded = True

    return MiniBitextMining()


@pytest.mark.oracle
def test_mteb_finds_the_pairs_that_we_find(e5, bitext_task):
    import mteb

    model = MtebEncoder(e5)
    assert isinstance(model, mteb.EncoderProtocol)
    result = mteb.evaluate(
        model, bitext_task, cache=None, co2_tracker=False, show_progress_bar=False
    )
    assert result.model_name == "xtremely/e5-small-4bit"
    (scores,) = result.task_results[0].scores["test"]
    de, en = (e5.embed(read_lines(MINI / f"{code}.txt")) for code in ("de", "en"))
    found, _ = best_match(mutual_neighbours(de, en), "cosine")
    assert scores["accuracy"] == np.mean(found == np.arange(len(en)))
    assert scores["accuracy"] > 0.9


@pytest.mark.oracle
def test_mteb_prompts(e5, bitext_task):
    from mteb.types import PromptType

    def encode(prompt_type=None):
        return MtebEncoder(e5).encode(
            [{"text": ["ein Satz", "one"]}, {"text": ["two"]}],
            task_metadata=bitext_task.metadata,
            hf_split="test",
            hf_subset="default",
            prompt_type=prompt_type,
        )

    def expected(prompt):
        return e5.embed(["ein Satz", "one", "two"], prompt=prompt)

    np.testing.assert_allclose(encode(), expected("query: "), atol=1e-6)
    np.testing.assert_allclose(encode(PromptType.query), expected("query: "), atol=1e-6)
    np.testing.assert_allclose(encode(PromptType.document), expected("passage: "), atol=1e-6)


def test_importing_needs_neither_library():
    loaded = "{'mteb', 'sentence_transformers'} & set(sys.modules)"
    code = f"import sys, xtremely.engine.adapters; sys.exit(bool({loaded}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("declared", "tokenizers", "used"),
    [(20, 64, 20), (100, 64, 100), (500, 64, 130), (None, 64, 64), (None, 10**30, 130)],
)
def test_a_declared_length_goes_before_the_tokenizers_and_the_encoders_bounds_both(
    tiny_bert, tmp_path, declared, tokenizers, used
):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    declare(folder, "sentence_bert_config.json", {"max_seq_length": declared})
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": tokenizers}))
    assert SentenceEncoder(Engine.load(str(folder))).max_seq_length == used
