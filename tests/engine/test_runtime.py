import json
import shutil

import numpy as np
import pytest
import torch
import transformers

from xtremely.engine.hub.conventions import conventions
from xtremely.engine.hub.locate import folder_hash, locate
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError, UsageError


@pytest.fixture(scope="module")
def engine(tiny_bert):
    return Engine.load(str(tiny_bert))


def test_order_is_the_callers_and_batches_do_not_matter(tiny_bert, engine, sentences):
    together = engine.embed(sentences)
    for budget in (1, 37, 500):
        apart = Engine.load(str(tiny_bert), token_budget=budget).embed(sentences)
        np.testing.assert_allclose(apart, together, atol=2e-6)
    one = np.concatenate([engine.embed([text]) for text in sentences])
    np.testing.assert_allclose(one, together, atol=2e-6)


def test_embeddings_are_float32_rows_of_length_one(engine, sentences):
    vectors = engine.embed(sentences)
    assert (vectors.shape, vectors.dtype) == ((len(sentences), 48), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_sweep_is_all_layers_and_poolings_from_one_pass(engine, sentences):
    vectors, work = engine.sweep(sentences, layers=[0, 1, 3], poolings=["mean", "cls"])
    assert vectors.shape == (len(sentences), 3, 2, 48)
    for i, layer in enumerate([0, 1, 3]):
        for j, pooling in enumerate(["mean", "cls"]):
            single = engine.embed(sentences, layer=layer, pooling=pooling, normalize=False)
            np.testing.assert_allclose(vectors[:, i, j], single, atol=1e-6)
    lengths = engine.tokenizer(sentences, engine.max_length).lengths
    assert (work.tokens, work.computed_tokens) == (lengths.sum(), lengths.sum())
    assert (work.padding_share, work.truncated, work.sentences) == (0, 1, len(sentences))


def test_progress_adds_up(engine, sentences):
    seen = []
    _, work = engine.sweep(
        sentences, layers=[3], poolings=["mean"], progress=lambda *step: seen.append(step)
    )
    assert [sum(column) for column in zip(*seen, strict=True)] == [len(sentences), work.tokens]


def test_no_texts_give_no_rows(engine):
    assert engine.embed([]).shape == (0, 48)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"layer": 4}, "layer 4 does not exist; bert has layers 0 to 3"),
        ({"pooling": "max"}, "'max' is not known; legal: mean, cls"),
        ({"max_length": 131}, "max_length 131 is not between 2 and the encoder's 130"),
    ],
)
def test_settings_that_do_not_exist_are_refused(engine, settings, complaint):
    with pytest.raises(InputError, match=complaint):
        engine.embed(["a"], **settings)


def test_one_string_instead_of_a_list_is_refused(engine):
    with pytest.raises(InputError, match="pass a list of strings"):
        engine.embed("a sentence")


def test_something_that_is_no_string_is_named(engine):
    with pytest.raises(InputError, match="text 2 of 2 is a NoneType, expected a string"):
        engine.embed(["a", None])


def test_out_of_memory_halves_the_batches_says_so_and_loses_nothing(tiny_bert, sentences):
    expected = Engine.load(str(tiny_bert)).embed(sentences)
    engine = Engine.load(str(tiny_bert), token_budget=400)
    run, limit = engine.backend.hidden, 150

    def small_device(batch, layers):
        if batch.tokens > limit:
            raise torch.OutOfMemoryError("tried to allocate")
        return run(batch, layers)

    engine.backend.hidden = small_device
    with pytest.warns(UserWarning, match="out of device memory; batches now have") as said:
        vectors = engine.embed(sentences)
    np.testing.assert_allclose(vectors, expected, atol=2e-6)
    assert 75 <= engine.batch_tokens <= limit  # never far below what fits
    assert engine.token_budget == 400  # a name of what was asked for, by which results are kept
    assert len(said) <= 3


def test_a_batch_of_one_that_does_not_fit_is_the_devices_error(tiny_bert):
    engine = Engine.load(str(tiny_bert))

    def no_device(batch, layers):
        raise torch.OutOfMemoryError("tried to allocate")

    engine.backend.hidden = no_device
    with pytest.raises(torch.OutOfMemoryError):
        engine.embed(["a"])


@pytest.mark.parametrize("name", ["mps", "meta", "gpu", "cuda:x"])
def test_a_device_that_no_backend_knows_is_refused(tiny_bert, name):
    with pytest.raises(UsageError, match="legal: auto, cpu, cuda, cuda:N"):
        Engine.load(str(tiny_bert), device=name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_asked_for_where_there_is_none_is_refused(tiny_bert):
    with pytest.raises(UsageError, match="this machine has no such usable GPU"):
        Engine.load(str(tiny_bert), device="cuda")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("e5-smal-4bit", "did you mean 'e5-small-4bit'"),
        ("xlm-roberta-base", "legal: e5-small-4bit, a folder, or owner/name of a model on the hub"),
        ("./nowhere/model", "there is no such folder"),
        ("someone/some-model", "the hub did not give it"),
    ],
)
def test_a_model_that_cannot_be_found_is_named_with_a_remedy(name, complaint):
    with pytest.raises(InputError, match=complaint):
        locate(name)


def test_a_tokenizer_larger_than_the_word_table_is_refused(make_tiny):
    folder = make_tiny("bert", vocab_size=100)
    with pytest.raises(InputError, match="word table only 100 rows; they belong to different"):
        Engine.load(str(folder))


def test_prompts_follow_the_folder_then_the_published_table(tiny_bert, tmp_path):
    assert conventions(tmp_path, "plain").default_prompt == ""
    assert conventions(tmp_path, "intfloat/multilingual-e5-large").default_prompt == "query: "
    (tmp_path / "config_sentence_transformers.json").write_text(
        '{"prompts": {"q": "ask: "}, "default_prompt_name": "q"}'
    )
    assert conventions(tmp_path, "multilingual-e5-large").default_prompt == "ask: "


@pytest.mark.parametrize(
    ("place", "origin", "prompt"),
    [
        ("models--intfloat--e5-base-v2/snapshots/0a1b", None, "query: "),
        ("models--someone--e5-base-v2/snapshots/0a1b", "intfloat/e5-base-v2", ""),
        ("models--intfloat--multilingual-e5-large-instruct/snapshots/0a", "intfloat/e5-large", ""),
        ("checkpoint", "intfloat/multilingual-e5-small", "query: "),
        ("checkpoint", "intfloat/multilingual-e5-large-instruct", ""),
        ("checkpoint", "intfloat/multilingual-e5-smaller", ""),
        ("checkpoint", None, ""),
        ("e5-small", None, "query: "),
        ("my-e5-small", None, ""),
        ("e5-small-finetuned", None, ""),
    ],
)
def test_a_published_prompt_is_for_a_model_that_is_known_exactly(tmp_path, place, origin, prompt):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_name_or_path": origin} if origin else {}))
    assert conventions(folder, folder.name).default_prompt == prompt


def test_a_model_that_follows_instructions_has_no_prompt_of_its_family(tmp_path):
    found = conventions(tmp_path, "intfloat/multilingual-e5-large-instruct")
    assert (found.default_prompt, found.prompts) == ("", {})
    assert found.prompt_form == "Instruct: TASK\nQuery: "
    assert "take one of the form 'Instruct: TASK" in found.described("mean", "")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("sentence_bert_config.json", "max_seq_length"),
        ("sentence_xlm-roberta_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ],
)
def test_texts_are_cut_where_the_model_asks_for_it(tiny_bert, tmp_path, name, field):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    path = folder / name
    raw = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**raw, field: 9}))
    short = Engine.load(str(folder))
    _, work = short.sweep(["a b c d e f g h i j k"], layers=[1], poolings=["mean"])
    assert (work.tokens, work.truncated) == (9, 1)


def test_an_empty_file_on_length_does_not_hide_the_next(tiny_bert, tmp_path):
    """As in sentence-transformers."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    (folder / "sentence_bert_config.json").write_text("{}")
    (folder / "sentence_xlm-roberta_config.json").write_text('{"max_seq_length": 9}')
    assert Engine.load(str(folder)).max_length == 9


def test_a_prompt_that_leaves_no_room_for_a_text_is_refused(engine):
    with pytest.raises(UsageError, match=r"the prompt 'ab.* leaves no room .* 128 tokens; take"):
        engine.embed(["cat", "dog"], prompt="ab" * 200)
    with pytest.raises(UsageError, match="leaves no room for a text in sequences of 8 tokens"):
        engine.embed(["cat", "dog"], prompt="a long one", max_length=8)
    assert engine.embed(["cat"], prompt="a ", max_length=8).shape == (1, 48)


def test_texts_with_special_tokens_written_out_are_those_of_transformers(make_tiny):
    folder = make_tiny("xlm-roberta")
    texts = ["a </s> text", "a <s> text", "<unk>", "a <mask> text", "a <pad> text"]
    ours = Engine.load(str(folder)).embed(texts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = [model(torch.tensor([tokenizer(one)["input_ids"]]))[0][0] for one in texts]
    theirs = np.stack([(state.mean(0) / state.mean(0).norm()).numpy() for state in states])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("where", ["sentence_bert_config", "positions"])
def test_a_limit_that_leaves_no_room_for_a_text_is_named_when_the_model_is_loaded(
    make_tiny, tmp_path, where, limit
):
    """All texts would be the same two special tokens, and their vectors equal."""
    if where == "positions":
        folder = make_tiny("bert", max_position_embeddings=limit)
    else:
        folder = shutil.copytree(make_tiny("bert"), tmp_path / "model")
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}))
    complaint = rf"cuts texts at {limit} tokens \(max_seq_length.*legal: 3 or more, with 2 special"
    with pytest.raises(InputError, match=complaint):
        Engine.load(str(folder))


def test_a_prompt_is_put_before_the_text(engine):
    np.testing.assert_array_equal(
        engine.embed(["cat"], prompt="a "), engine.embed(["a cat"], prompt="")
    )


def test_a_folders_hash_sees_content_and_names(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    first = folder_hash(tmp_path)
    (tmp_path / "README.md").write_text("not part of the model")
    assert folder_hash(tmp_path) == first
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "results.json").write_text("{}")
    assert folder_hash(tmp_path) == first
    (tmp_path / "config.json").write_text("{ }")
    assert folder_hash(tmp_path) != first


@pytest.mark.parametrize("broken", ["{", "[1]", '{"a": 1}', '[{"type": 3}]'])
def test_a_broken_list_of_modules_is_named(tmp_path, broken):
    (tmp_path / "modules.json").write_text(broken)
    with pytest.raises(InputError, match="modules.json.*(broken JSON|legal: an? |'.*type' is)"):
        conventions(tmp_path, "m")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("sentence_bert_config.json", {"max_seq_length": "512"}, "'max_seq_length' is '512'"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "'max_seq_length' is 0"),
        ("sentence_bert_config.json", {"max_seq_length": True}, "'max_seq_length' is True"),
        ("sentence_bert_config.json", {"do_lower_case": "no"}, "'do_lower_case' is 'no'"),
        ("sentence_bert_config.json", [], "the file's value is"),
        ("config_sentence_transformers.json", {"prompts": ["a"]}, "'prompts' is"),
        ("config_sentence_transformers.json", {"prompts": {"q": 5}}, "'prompts.q' is 5"),
        ("config_sentence_transformers.json", {"default_prompt_name": 3}, "_prompt_name' is 3"),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "'x'; legal: doc"),
        ("config_sentence_transformers.json", {"truncate_dim": -1}, "'truncate_dim' is -1"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": 1}, "_cls_token' is 1; legal: a va"),
        ("sentence_bert_config.json", {"query_length": 9}, "'query_length' is 9, .* leave it out"),
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"text": {}}},
            "'processing_kwargs' is",
        ),
        ("1_Pooling/config.json", {"include_prompt": "yes"}, "'include_prompt' is 'yes'"),
        ("modules.json", [{"type": "x.Transformer", "path": "../y"}], "leads out of its folder"),
        ("modules.json", [{"type": "x.Transformer", "path": "/y"}], "leads out of its folder"),
    ],
    ids=str,
)
def test_a_declaration_that_does_not_fit_is_named(tmp_path, name, value, complaint):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps(value))
    with pytest.raises(InputError, match=f"{name.split('/')[-1]}.*{complaint}") as said:
        conventions(tmp_path, "m")
    assert "\n" not in str(said.value)


def test_a_folders_own_default_prompt_goes_before_a_published_one(tmp_path):
    declared = {"prompts": {"query": "q: ", "mine": "m: "}, "default_prompt_name": "mine"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(declared))
    found = conventions(tmp_path, "multilingual-e5-small")
    assert (found.default_prompt, found.prompt("query")) == ("m: ", "q: ")
    declared["default_prompt_name"] = None
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(declared))
    found = conventions(tmp_path, "multilingual-e5-small")
    assert (found.default_prompt, found.prompt("passage")) == ("q: ", "passage: ")


def test_a_folders_hash_sees_a_files_name_and_its_modules_configurations(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    first = folder_hash(tmp_path)
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    assert folder_hash(tmp_path) != first
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "modules.json").write_text('[{"type": "x.Pooling", "path": "1_Pooling"}]')
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    second = folder_hash(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text("{ }")
    assert folder_hash(tmp_path) != second


def test_a_folders_hash_sees_a_pooling_that_no_list_names(tmp_path):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "max"}')
    first = folder_hash(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "lasttoken"}')
    assert folder_hash(tmp_path) != first


def test_a_tokenizer_without_token_types_gives_the_model_none(make_tiny):
    """XLM adds the embedding of token 0 for a type of 0, so that none and 0 differ."""
    import transformers

    folder = make_tiny("xlm", emb_dim=48, n_layers=2, n_heads=4)
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | names))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = model(**tokenizer("Hello there", return_tensors="pt")).last_hidden_state
    found = Engine.load(str(folder)).embed(["Hello there"], prompt="", pooling="mean")
    wanted = torch.nn.functional.normalize(states.mean(1)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["[/red]", "a/b c", "owner/-name", "owner/" + "x" * 97, "é/b"])
def test_a_name_that_the_hub_cannot_have_is_one_complaint(name):
    with pytest.raises(InputError, match="no name that the hub can have") as caught:
        Engine.load(name)
    assert "\n" not in str(caught.value)
