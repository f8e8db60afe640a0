"""FAISS's indexes behind build, add, search, save and open.

An index is an ordinary FAISS file with a note beside it, NAME.json: its checksum, how it was built,
and whose vectors are in it. Whoever opens it says whose vectors it should hold, and is refused if
it holds others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.files.documents import fit, read_json
from xtremely.files.writing import file_digest, write_atomic, written_whole
from xtremely.kernels.guard import InputError, require, require_number
from xtremely.retrieval import exact, plan
from xtremely.retrieval.blas import load_faiss
from xtremely.retrieval.neighbours import (
    AGAIN,
    Neighbours,
    Vectors,
    lengths_of,
    refuse_rows,
    require_finite,
)

MAX_NOTE = 2**24  # bytes
BLOCK = 4096  # rows added, or searched for, at a time; always the same ones
SAMPLE = 256  # queries that a search setting is chosen with
LONGEST = 2.0**62  # of a vector: the product of two, and a squared distance, stay within float32
MAX_EFFORT = 2**20
HALF = 65_504.0  # the largest fp16
EFFORTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

Progress = Callable[[int], None]  # rows done since the last call


def _silent(rows: int) -> None:
    pass


@dataclass(frozen=True)
class Note:
    """What the note of every index says, beside what its maker adds.

    Attributes:
        factory: FAISS's description of it.
        rows: how many vectors it holds.
        width: their dimensions.
        sha256: checksum of its file.
        effort: how thoroughly it searches; None for kinds that know no such setting.
    """

    factory: str
    rows: int
    width: int
    sha256: str
    effort: int | None = None


@dataclass
class Index:
    """A FAISS index and what is known about it.

    Attributes:
        faiss: the index itself, on the CPU or on GPUs.
        about: ``factory``, ``effort``, ``recall``, and whose vectors it holds.
    """

    faiss: Any
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def trained(cls, vectors: Vectors, factory: str, seed: int = 0) -> Index:
        """An empty index that has learned from a sample of the vectors.

        Args:
            vectors: [N, D].
            factory: FAISS's description, such as ``IVF1024,Flat``.
            seed: which sample.

        Raises:
            UsageError: FAISS does not know the description.
            InputError: no vectors, or too few to train with.
        """
        faiss = load_faiss()
        rows, width = vectors.shape
        require(rows > 0, "there are no vectors to build an index of")
        plan.check_factory(factory, width)
        least = plan.least_rows(factory)
        require(
            rows >= least,
            f"{factory} cannot be trained with {rows:,} vectors, it needs at least {least:,}; take"
            " fewer lists, shorter codes, or Flat",
        )
        index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
        leave_codes_unordered(index)
        if not index.is_trained:
            wanted = plan.train_rows(factory, rows) or rows
            sample = np.random.default_rng(seed).choice(rows, wanted, replace=False)
            try:
                index.train(_usable(vectors[np.sort(sample)], np.sort(sample), factory))
            except RuntimeError as error:
                raise InputError(
                    f"{factory} cannot be trained with {wanted:,} vectors"
                    f" ({plan.faiss_reason(error)}); take fewer lists, or Flat"
                ) from error
        return cls(index, {"factory": factory, "rows": 0, "width": width})

    @classmethod
    def build(
        cls, vectors: Vectors, factory: str, progress: Progress = _silent, **about: Any
    ) -> Index:
        """An index of vectors that need not lie in memory; ``about`` is kept with it."""
        require_finite(vectors, "the base")
        index = cls.trained(vectors, factory)
        index.add(vectors, progress)
        index.about |= about
        return index

    def add(self, vectors: Vectors, progress: Progress = _silent) -> None:
        """Add vectors, a block at a time; their rows count on from those that are there.

        Raises:
            InputError: names rows with NaN or infinity and those too long for float32's products.
        """
        for first in range(0, len(vectors), BLOCK):
            block = vectors[first : first + BLOCK]
            rows = np.arange(first, first + len(block))
            with self._refusable(f"take {len(block):,} vectors"):
                self.faiss.add(_usable(block, rows, self.about["factory"]))
            progress(len(block))
        self.about["rows"] = self.faiss.ntotal

    def empty_copy(self) -> Index:
        """The same index without its vectors: it puts equal vectors into equal places."""
        with self._refusable("be copied, as mining has to"):
            copy = load_faiss().clone_index(self.faiss)
            copy.reset()
        return Index(copy, {**self.about, "rows": 0})

    def search(self, queries: Vectors, k: int, progress: Progress = _silent) -> Neighbours:
        """The k nearest rows that the index finds; where it finds fewer, the rest is (-inf, -1).

        Raises:
            InputError: other dimensions than the index, k larger than the index, or queries with
                NaN or infinity, which are named, as are those too long for float32's products.
        """
        rows, width = self.faiss.ntotal, self.faiss.d
        require(
            len(queries.shape) == 2 and queries.shape[1] == width,
            f"queries have shape {queries.shape}, the index has {width} dimensions",
        )
        require(1 <= k <= rows, f"k is {k}, the index holds {rows} vectors; legal: 1 to {rows}")
        found = Neighbours(
            np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        )
        for first in range(0, len(queries), BLOCK):
            block = queries[first : first + BLOCK]
            here = slice(first, first + len(block))
            block = _usable(block, np.arange(len(queries))[here])
            with self._refusable("be searched"):
                found.scores[here], found.ids[here] = self.faiss.search(block, k)
            progress(len(block))
        found.scores[found.ids < 0] = -np.inf
        return found

    def set_effort(self, search_effort: int) -> None:
        """How thoroughly to search: lists of an IVF, candidates of an HNSW; others know none.

        Raises:
            UsageError: less than 1, or more than any index can use.
        """
        require_number("the effort of a search", search_effort, 1, MAX_EFFORT)
        faiss = load_faiss()
        kind = faiss.downcast_index(self.faiss)
        name = "efSearch" if "HNSW" in self.about["factory"].split(",")[0] else "nprobe"
        if name == "efSearch" or "IVF" in self.about["factory"]:
            with self._refusable(f"search with effort {search_effort}"):
                faiss.ParameterSpace().set_index_parameter(kind, name, search_effort)
            self.about["effort"] = search_effort

    def tune(self, queries: Vectors, base: Vectors, k: int, spare: int, recall: float) -> None:
        """Take the least effort with which the index finds the wanted share of true neighbours.

        Args:
            queries: a sample of what will be searched for.
            base: the vectors that are in the index.
            k: neighbours that count.
            spare: how many more the index may hand over, as they will be scored again.
            recall: wanted share of the k nearest, 0 to 1; with the greatest effort if none does.
        """
        require_number("recall", recall, 0, 1)
        require_number("k", k, 1)
        sample = queries[np.linspace(0, len(queries) - 1, min(SAMPLE, len(queries)), dtype=int)]
        k = min(k, len(base))
        truth = exact.search(sample, base, k).ids
        for search_effort in EFFORTS:
            self.set_effort(search_effort)
            found = self.search(sample, min(k + spare, len(base))).ids
            self.about["recall"] = {"k": k, "share": overlap(found, truth), "of": len(sample)}
            if self.about["recall"]["share"] >= recall or "effort" not in self.about:
                break

    @contextmanager
    def _refusable(self, what: str) -> Iterator[None]:
        """Raise InputError where FAISS says that this kind of index cannot do something."""
        try:
            yield
        except RuntimeError as error:
            raise InputError(
                f"{self.about['factory']} cannot {what} ({plan.faiss_reason(error)}); take another"
                " kind of index, such as Flat or IVF1024,Flat"
            ) from error

    def on_gpus(self, shard: bool = True) -> Index:
        """A copy on all GPUs, split over them (or whole on each), with vectors in fp16.

        Raises:
            InputError: this FAISS has no GPU, or cannot run this kind of index there.
        """
        faiss, count = load_faiss(), gpu_count()
        require(count > 0, "this FAISS sees no GPU; install 'xtremely[gpu]' on a machine with one")
        options = faiss.GpuMultipleClonerOptions()
        options.shard, options.useFloat16 = shard, True
        try:
            there = faiss.index_cpu_to_all_gpus(self.faiss, co=options)
        except RuntimeError as error:
            raise InputError(
                f"FAISS cannot run {self.about['factory']} on a GPU; take an IVF or Flat"
            ) from error
        return Index(there, {**self.about, "gpus": count})

    def save(self, path: Path) -> None:
        """Write the index and, last, its note; nothing is left of a write that fails."""
        faiss = load_faiss()
        try:
            with written_whole(path) as temporary:
                faiss.write_index(self.faiss, str(temporary))
                digest = file_digest(temporary)
            note = {**self.about, "faiss": faiss.__version__, "sha256": digest}
            write_atomic(note_path(path), json.dumps(note, indent=1).encode())
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or plan.faiss_reason(error)
            raise InputError(f"cannot write {path} ({reason}); nothing was kept") from error

    @classmethod
    def open(cls, path: Path, **expected: Any) -> Index:
        """An index from its file.

        Args:
            path: the file.
            **expected: what its note must say, such as ``model_hash``; None for anything.

        Raises:
            InputError: absent, damaged, or other vectors than expected.
        """
        about = read_note(path)
        require_same(about, expected, str(path))
        damaged = f"{path} is damaged or not the file that its note describes; build it again"
        require(file_digest(path) == about.pop("sha256"), damaged)
        try:
            index = cls(load_faiss().read_index(str(path)), about)
            if about.get("effort") is not None:
                index.set_effort(about["effort"])
        except (RuntimeError, InputError) as error:
            raise InputError(damaged) from error
        require((index.faiss.ntotal, index.faiss.d) == (about["rows"], about["width"]), damaged)
        return index


def gpu_count() -> int:
    """GPUs that this FAISS sees."""
    faiss = load_faiss()
    return faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    """Share of the true rows [N, k] that are among those found [N, any], 0 to 1."""
    hits = sum((truth[:, [place]] == found).any(axis=1).sum() for place in range(truth.shape[1]))
    return float(hits) / max(1, truth.size)


def note_path(path: Path) -> Path:
    """The note of an index."""
    return path.with_name(f"{path.name}.json")


def read_note(path: Path) -> dict[str, Any]:
    """What is known about an index in a file, without opening it.

    Raises:
        InputError: no such index, or its note is missing or lacks what every note has.
    """
    require(path.is_file(), f"{path}: there is no such index")
    try:
        kept = read_json(note_path(path), dict[str, Any], MAX_NOTE)
        fit(kept, Note, str(note_path(path)))
        return kept
    except InputError as error:
        raise InputError(
            f"{error}: the note is missing or damaged, and nobody knows what {path.name} holds;"
            " build it again"
        ) from error


def _usable(values: np.ndarray, rows: np.ndarray, factory: str = "") -> np.ndarray:
    """Vectors as FAISS takes them; InputError names those [rows, from 0] that it would spoil."""
    lengths = lengths_of(values)
    refuse_rows(rows[~np.isfinite(lengths)], "there is NaN or infinity", AGAIN)
    too_long = (
        f"vectors are longer than {LONGEST:.1e}, so that products could leave float32's range,"
    )
    refuse_rows(rows[lengths > LONGEST], too_long, "scale them to length 1")
    values = np.ascontiguousarray(values, dtype=np.float32)
    if "SQfp16" in factory:
        bad = np.abs(values).max(axis=1, initial=0) > HALF
        refuse_rows(rows[bad], f"values are beyond fp16's {HALF:,.0f}", "take Flat, or scale them")
    return values


def require_same(about: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> None:
    """Raise InputError that names every difference."""
    other = [
        f"{name} {about.get(name)!r}, not {value!r}"
        for name, value in expected.items()
        if value is not None and about.get(name) != value
    ]
    require(
        not other, f"{what} was made with {'; '.join(other)}: build it again, or ask for what it is"
    )


def leave_codes_unordered(index: Any) -> None:
    """Without the annealing that makes near centroids' codes differ in few bits.

    Nothing here filters by such distances, and it takes 15 times the rest of a PQ's training.
    """
    faiss = load_faiss()
    kind = faiss.downcast_index(index)
    if isinstance(kind, faiss.IndexPreTransform):
        kind = faiss.downcast_index(kind.index)
    if hasattr(kind, "do_polysemous_training"):
        kind.do_polysemous_training = False
