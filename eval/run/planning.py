"""Planning a run: read all data and resolve all settings before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xtremely.engine.hub.conventions import OWN, prompt_named
from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import ENGINE_POOLINGS, Engine
from xtremely.eval.data.examples import content
from xtremely.eval.data.hub import is_hub
from xtremely.eval.data.readers import Damaged, Incomplete, Missing, text_hash, whole_number
from xtremely.eval.methods.kinds import check_length, inference_of, kind_of
from xtremely.eval.methods.spaces import Space, Spaces
from xtremely.eval.tasks.task import EmbeddingRules, LabelRules, RankingRules, Task
from xtremely.files.documents import check_value
from xtremely.kernels.guard import InputError, UsageError, require, require_number

PROFILES = ("model", "script", "paper")
CENTRINGS = ("none", "mean")
MAX_COUNT = 10**9  # largest legal number of examples

Absent = Missing | Incomplete | Damaged  # why a task has no data for a language


@dataclass(frozen=True)
class EvaluationSettings:
    """The user's settings of an evaluation.

    Attributes:
        profile: ``model`` (the model's own last layer, pooling and prompt), ``script`` or
            ``paper`` (the benchmark's published settings, no prompt).
        layers: ``last``, ``all``, or numbers separated by commas; None takes the profile's.
        poolings: names of ``ENGINE_POOLINGS``; None takes the profile's.
        centrings: ``none``, ``mean`` or both.
        prompt: text before every sentence; None takes the profile's.
        limit: most sentences to evaluate; None for all.
    """

    profile: str = "model"
    layers: str | None = None
    poolings: tuple[str, ...] | None = None
    centrings: tuple[str, ...] = ("none",)
    prompt: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Cell:
    """One task in one language, ready to be evaluated.

    Attributes:
        task: the task with this run's rules.
        language: its code.
        splits: split -> examples.
        how: the embedding spaces to compare (retrieval), or the head that answers (other kinds).
        max_length: most tokens of a sequence.
        data_hash: SHA-256 of the data.
        token_budget: most tokens of a batch.
        first: whether it is the first of its task in the run. Its record holds the cost of texts
            that all cells of the task share.
    """

    task: Task
    language: str
    splits: dict[str, Any]
    how: Spaces | Head
    max_length: int
    data_hash: str
    token_budget: int
    first: bool = True


def plan_cells(
    engine: Engine,
    tasks: list[Task],
    data_root: Path | None,
    settings: EvaluationSettings,
    languages: list[str] | None = None,
    strict: bool = True,
    skip_damaged: bool = False,
) -> tuple[list[Cell], list[Absent]]:
    """Read all data and resolve all settings before anything is computed.

    Args:
        engine: the model that will run.
        tasks: the tasks to evaluate.
        data_root: folder with the data.
        settings: the user's settings.
        languages: only these, where a task has them; None takes all.
        strict: missing data is an error: a task without any, a requested language without data,
            or a split with missing files. Otherwise it is reported in the second return value.
        skip_damaged: unreadable data is reported there, too, except for Hugging Face data sets.
            Otherwise it is an error.

    Returns:
        The cells in order, and why languages of the benchmark, or requested ones, were left out:
        their data is missing, incomplete or damaged.
    """
    check_values(settings)
    cells: list[Cell] = []
    absent: list[Absent] = []
    for task in tasks:
        every = (*task.languages, *task.more_languages)
        wanted = [code for code in every if languages is None or code in languages]
        found_before = len(cells)
        for code in wanted:
            try:
                splits = task.load(data_root, code)
            except Incomplete as part:
                if strict:
                    raise
                absent.append(part)
                continue
            except Missing as gone:
                if strict and languages is not None:
                    raise
                if code in task.languages or languages is not None:
                    absent.append(gone)
                continue
            except InputError as error:
                if not skip_damaged or (data_root is not None and is_hub(data_root)):
                    raise
                absent.append(Damaged(task.name, code, error))
                continue
            first = len(cells) == found_before
            cells.append(_cell(engine, task, code, splits, settings, first))
        if wanted and len(cells) == found_before and strict:
            raise absent[-1]
    return cells, absent


def described(engine: Engine, cells: list[Cell]) -> str:
    """A sentence about how a run embeds texts: prompt, pooling, layers and length.

    Returns:
        The sentence, about the first cell with embeddings; empty if there is none.
    """
    for cell in cells:
        if isinstance(cell.how, Spaces):
            one, depth = cell.how.headline, engine.backend.layers
            how = engine.conventions.described(one.pooling, cell.how.prompt)
            others = len({space.layer for space in cell.how.every}) - 1
            more = f" and {others} more" if others else ""
            length = cell.how.candidate_length
            candidates = (
                f"; candidates with {prompt_named(cell.how.candidate_prompt)}, cut at {length}"
                if length
                else ""
            )
            return (
                f"{engine.name}: {how}, layer {one.layer} of {depth}{more}, texts cut at"
                f" {cell.max_length} tokens{candidates}"
            )
    return ""


def check_languages(tasks: list[Task], languages: list[str]) -> None:
    """Raise UsageError for a language that none of the tasks has."""
    known = {code for task in tasks for code in (*task.languages, *task.more_languages)}
    for code in languages:
        if code not in known:
            raise UsageError(
                f"language {code!r} is in none of the tasks {', '.join(t.name for t in tasks)};"
                f" legal: {', '.join(sorted(known))}"
            )


def check_values(settings: EvaluationSettings) -> None:
    """Raise UsageError for values that no model accepts."""
    for name, legal, given in (
        ("profile", PROFILES, (settings.profile,)),
        ("pooling", ENGINE_POOLINGS, settings.poolings or ()),
        ("centring", CENTRINGS, settings.centrings),
    ):
        for value in given:
            if value not in legal:
                raise UsageError(f"{name} {value!r} is not known; legal: {', '.join(legal)}")
    if settings.limit is not None:
        require_number("--limit", settings.limit, 2, MAX_COUNT)
    if settings.prompt is not None:
        check_value(settings.prompt, "--prompt")


def check_settings(tasks: list[Task], settings: EvaluationSettings) -> str:
    """Name the tasks that ignore embedding settings, as heads read the last layer's tokens.

    Returns:
        A sentence; empty if no task ignores a setting.

    Raises:
        UsageError: an embedding setting was given and no task of the run makes embeddings, or a
            value is not legal.
    """
    check_values(settings)
    given = {
        "--layers": settings.layers is not None,
        "--pooling": settings.poolings is not None,
        "--centring": settings.centrings != EvaluationSettings.centrings,
        "--prompt": settings.prompt is not None,
    }
    names = ", ".join(name for name, is_given in given.items() if is_given)
    headed = ", ".join(task.name for task in tasks if not isinstance(task.rules, EmbeddingRules))
    if not names or not headed:
        return ""
    embedded = ", ".join(task.name for task in tasks if isinstance(task.rules, EmbeddingRules))
    if not embedded:
        raise UsageError(
            f"{names}: a setting of embeddings, and {headed} is answered by a head, which reads the"
            " last layer as it was trained to; leave it out, or add tatoeba or bucc2018"
        )
    return f"{names} is for {embedded}; heads answer {headed} without it"


def _cell(
    engine: Engine,
    task: Task,
    code: str,
    splits: dict[str, Any],
    settings: EvaluationSettings,
    first: bool,
) -> Cell:
    kind = kind_of(task)
    how: Spaces | Head
    if isinstance(task.rules, EmbeddingRules):
        own = settings.profile == "model"
        longest = engine.max_length if own else engine.backend.max_length
        how = _spaces(engine, task.rules, settings)
        if isinstance(task.rules, RankingRules):
            how = replace(how, **_of_candidates(engine, task.rules, settings, longest))
    else:
        how = _head(engine, task)
        longest = engine.backend.max_length
    if settings.profile != "model":
        task = kind.as_published(task)
    if settings.limit is not None:
        splits = {name: kind.first(data, settings.limit) for name, data in splits.items()}
    max_length = min(task.max_length, longest)
    check_length(engine.tokenizer, task, max_length, f"task {task.name!r}")
    texts = {name: content(data) for name, data in splits.items()}
    return Cell(
        task,
        code,
        splits,
        how,
        max_length,
        text_hash(texts),
        engine.token_budget,
        first,
    )


def _head(engine: Engine, task: Task) -> Head:
    """The model's head for the task; an error if it has none that fits."""
    labels = task.rules.labels if isinstance(task.rules, LabelRules) else ()
    try:
        return engine.head(inference_of(task).head, labels)
    except InputError as error:
        raise type(error)(f"task {task.name!r}: {error}") from error


def _of_candidates(
    engine: Engine, rules: RankingRules, settings: EvaluationSettings, longest: int
) -> dict[str, Any]:
    """Prompts and length where candidates are ranked: the model's own for queries and documents."""
    length = {"candidate_length": min(rules.candidate_length, longest)}
    if settings.prompt is not None:
        return {**length, "candidate_prompt": settings.prompt}
    if settings.profile != "model":
        return length
    query, document = engine.conventions.retrieval_prompts
    return {**length, "prompt": query, "candidate_prompt": document}


def _spaces(engine: Engine, rules: EmbeddingRules, settings: EvaluationSettings) -> Spaces:
    depth, own = engine.backend.layers, engine.conventions
    if settings.profile == "model":
        layer, pooling, prompt = depth, own.pooling, own.default_prompt
    else:
        published = rules.profiles[settings.profile]
        layer = depth if settings.layers is not None else published.layer(depth, settings.profile)
        pooling, prompt = published.pooling, ""
    layers = [layer] if settings.layers is None else chosen_layers(settings.layers, depth)
    poolings = list(dict.fromkeys(own.named(one) for one in settings.poolings or (pooling,)))
    # At layer 0 the first token's embedding is the same for every text, so CLS is left out there.
    first = {"cls"} | ({OWN} if {*own.modules.pooling} == {"cls"} else set())
    pairs = [(a, b) for a in layers for b in poolings if a or b not in first]
    require(bool(pairs), "layer 0 with cls pooling is the same vector for every text")
    headline = Space(
        layer if layer in layers else layers[-1],
        pooling if pooling in poolings else poolings[-1],
        settings.centrings[0],
    )
    return Spaces(
        [Space(a, b, c) for a, b in pairs for c in settings.centrings],
        headline,
        prompt if settings.prompt is None else settings.prompt,
    )


def chosen_layers(spec: str, depth: int) -> list[int]:
    """The layer numbers that ``--layers`` selects in a model of ``depth`` layers.

    Raises:
        UsageError: the model does not have a layer.
    """
    if spec == "all":
        return list(range(depth + 1))
    layers = []
    for name in spec.split(","):
        text = name.strip()
        number = depth if text == "last" else whole_number(text)
        if number is None or number > depth:
            raise UsageError(
                f"layer {text[:20]!r} does not exist; legal: all, last, or 0 to {depth}"
                " (several separated by commas)"
            )
        layers.append(number)
    return sorted(set(layers))
