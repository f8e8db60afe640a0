"""Builds, searches, saves and opens FAISS indexes.

An index is an ordinary FAISS file. Beside it lies a note, NAME.json, with its checksum, how it was
built, and the model and corpus of its vectors. ``Index.open`` takes the expected values and raises
an error if the note has others.
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
BLOCK = 4096  # rows added, or queries searched, at a time; cut at the same places in every run
SAMPLE = 256  # queries on which the search effort is tuned
LONGEST = 2.0**62  # longest legal vector: inner products and squared distances fit into float32
MAX_EFFORT = 2**20
HALF = 65_504.0  # the largest fp16
EFFORTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

Progress = Callable[[int], None]  # rows done since the last call


def _silent(rows: int) -> None:
    pass


@dataclass(frozen=True)
class Note:
    """The fields that the note of every index has; callers of ``build`` may add more.

    Attributes:
        factory: FAISS's description of the index, as for ``index_factory``.
        rows: number of vectors.
        width: dimensions of a vector.
        sha256: checksum of the file.
        effort: nprobe or efSearch, see ``set_effort``; None for kinds that have neither.
    """

    factory: str
    rows: int
    width: int
    sha256: str
    effort: int | None = None


@dataclass
class Index:
    """A FAISS index and its note.

    Attributes:
        faiss: the FAISS index, on the CPU or on GPUs.
        about: the note: ``factory``, ``effort``, ``recall``, and the origin of its vectors.
    """

    faiss: Any
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def trained(cls, vectors: Vectors, factory: str, seed: int = 0) -> Index:
        """An index that is trained on a sample of the vectors, and still empty.

        Args:
            vectors: [N, D].
            factory: FAISS's description, such as ``IVF1024,Flat``.
            seed: random seed of the sample.

        Raises:
            UsageError: FAISS cannot make an index of this description.
            InputError: there are no vectors, or too few to train on.
        """
        faiss = load_faiss()
        rows, width = vectors.shape
        require(rows > 0, "there are no vectors to build an index of")
        plan.check_factory(factory, width, rows)
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
        """Train an index and add all vectors, which need not be in memory.

        Args:
            vectors: [N, D].
            factory: FAISS's description.
            progress: called with the number of rows added since the last call.
            **about: further fields of the note, such as ``model_hash``.

        Raises:
            UsageError: FAISS cannot make an index of this description.
            InputError: there are no vectors, too few, or rows that cannot be added.
        """
        require_finite(vectors, "the base")
        index = cls.trained(vectors, factory)
        index.add(vectors, progress)
        index.about |= about
        return index

    def add(self, vectors: Vectors, progress: Progress = _silent) -> None:
        """Add vectors in blocks; their rows are numbered on from the last row of the index.

        Raises:
            InputError: rows hold NaN or infinity, or are too long for float32; they are named.
        """
        for first in range(0, len(vectors), BLOCK):
            block = vectors[first : first + BLOCK]
            rows = np.arange(first, first + len(block))
            with self._refusable(f"take {len(block):,} vectors"):
                self.faiss.add(_usable(block, rows, self.about["factory"]))
            progress(len(block))
        self.about["rows"] = self.faiss.ntotal

    def empty_copy(self) -> Index:
        """A copy with the same training and without vectors."""
        with self._refusable("be copied, as mining has to"):
            copy = load_faiss().clone_index(self.faiss)
            copy.reset()
        return Index(copy, {**self.about, "rows": 0})

    def search(self, queries: Vectors, k: int, progress: Progress = _silent) -> Neighbours:
        """The k best rows that the index finds; if it finds fewer, the rest is (-inf, -1).

        Args:
            queries: [N, D].
            k: neighbours per query, at most the rows of the index.
            progress: called with the number of queries done since the last call.

        Raises:
            InputError: D or k does not fit the index, or queries hold NaN or infinity or are too
                long for float32; their rows are named.
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

    def set_effort(self, effort: int) -> None:
        """Set nprobe (lists searched) of an IVF or efSearch of an HNSW; other kinds have neither.

        Raises:
            UsageError: ``effort`` is below 1 or above ``MAX_EFFORT``.
            InputError: FAISS cannot set it for this index.
        """
        require_number("the effort of a search", effort, 1, MAX_EFFORT)
        faiss = load_faiss()
        kind = faiss.downcast_index(self.faiss)
        factory = self.about["factory"]
        # Where an HNSW finds the lists of an IVF, the number of lists decides.
        name = "nprobe" if "IVF" in factory else "efSearch" if "HNSW" in factory else None
        if name is not None:
            with self._refusable(f"search with effort {effort}"):
                faiss.ParameterSpace().set_index_parameter(kind, name, effort)
            self.about["effort"] = effort

    def tune(self, queries: Vectors, base: Vectors, k: int, overfetch: int, recall: float) -> None:
        """Set the least effort that reaches a recall; the greatest if none does.

        Args:
            queries: queries to draw a sample from.
            base: the vectors in the index.
            k: number of true nearest neighbours to find.
            overfetch: candidates beyond k that the index may return, as they are rescored.
            recall: required share of the k nearest among the candidates, 0 to 1.
        """
        require_number("recall", recall, 0, 1)
        require_number("k", k, 1)
        sample = queries[np.linspace(0, len(queries) - 1, min(SAMPLE, len(queries)), dtype=int)]
        k = min(k, len(base))
        truth = exact.search(sample, base, k).ids
        for effort in EFFORTS:
            self.set_effort(effort)
            found = self.search(sample, min(k + overfetch, len(base))).ids
            self.about["recall"] = {"k": k, "share": overlap(found, truth), "of": len(sample)}
            if self.about["recall"]["share"] >= recall or "effort" not in self.about:
                break

    @contextmanager
    def _refusable(self, what: str) -> Iterator[None]:
        """Raise InputError where FAISS reports that this kind of index cannot do something."""
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
            InputError: FAISS sees no GPU, or cannot run this kind of index on one.
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
        """Write the index and then its note; a failed write leaves no file.

        Raises:
            InputError: a file cannot be written.
        """
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
        """Load an index from its file.

        Args:
            path: the file.
            **expected: values that its note must have, such as ``model_hash``; None accepts any.

        Raises:
            InputError: the index is missing or damaged, or its note has other values.
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
    """Number of GPUs that the installed FAISS sees."""
    faiss = load_faiss()
    return faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    """Recall: share of the true rows [N, k] that are among the found rows [N, any], 0 to 1."""
    hits = sum((truth[:, [place]] == found).any(axis=1).sum() for place in range(truth.shape[1]))
    return float(hits) / max(1, truth.size)


def note_path(path: Path) -> Path:
    """Path of the note of the index at ``path``."""
    return path.with_name(f"{path.name}.json")


def read_note(path: Path) -> dict[str, Any]:
    """The note of an index in a file, which is not opened.

    Raises:
        InputError: there is no such index, or its note is missing or lacks a field.
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
    """Vectors as contiguous float32; InputError names rows that FAISS could not represent."""
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
    """Raise InputError, naming every difference, unless ``about`` has the expected values."""
    other = [
        f"{name} {about.get(name)!r}, not {value!r}"
        for name, value in expected.items()
        if value is not None and about.get(name) != value
    ]
    require(
        not other, f"{what} was made with {'; '.join(other)}: build it again, or ask for what it is"
    )


def leave_codes_unordered(index: Any) -> None:
    """Turn off polysemous training, which gives near PQ centroids codes that differ in few bits.

    It only serves filtering by Hamming distance, which is not used here, and takes 15 times as long
    as the rest of a PQ's training.
    """
    faiss = load_faiss()
    kind = faiss.downcast_index(index)
    if isinstance(kind, faiss.IndexPreTransform):
        kind = faiss.downcast_index(kind.index)
    if hasattr(kind, "do_polysemous_training"):
        kind.do_polysemous_training = False
