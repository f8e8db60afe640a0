"""Exact search, indexes and mining: time, memory, recall and quality, beside peers and the limit.

    python -m xtremely.bench.retrieval --real vectors.npy --out results
    python -m xtremely.bench.retrieval --real vectors.npy --only exact --queries 50000 --rows 200000
    python -m xtremely.bench.retrieval --real vectors.npy --only indexes --sizes 10000,100000
    python -m xtremely.bench.retrieval --sets sets --languages zh,de --only quality --out results

``vectors.npy`` holds embeddings of real sentences (``xtremely encode``). Larger sets are made from
it by adding perturbed copies. Each copy is moved by a random vector of length 0.3 and scaled to
length 1, so its cosine with the original is about 0.96. ``sets`` is a folder written by
``bench.mining_sets``.

Every measurement has wall-clock and CPU seconds; on a machine with other load only the latter can
be compared. Results are written at once to ``retrieval-*.json``, with a chart beside them. The last
line of stdout is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xtremely.bench import machine, retrieval_peers
from xtremely.bench.harness import Spread
from xtremely.bench.plots import growth
from xtremely.engine.runtime import Engine
from xtremely.eval.mining.gold import TUNED
from xtremely.eval.mining.mine import MiningContext, MiningSettings, mine
from xtremely.kernels.guard import require
from xtremely.retrieval import exact
from xtremely.retrieval.blas import blas, load_faiss
from xtremely.retrieval.index import Index, gpu_count, overlap
from xtremely.retrieval.plan import needed, require_memory
from xtremely.retrieval.vectors import FileRows, UnitRows

RESULTS = Path(__file__).parent / "results"
MOVED = 0.3  # length of a copy's random displacement
Keep = Callable[[Any], None]
KS = (4, 16)
FACTORIES = ("IVF{lists},Flat", "IVF{lists},SQfp16", "OPQ64,IVF{lists},PQ64", "HNSW32")
QUALITY = ("exact", "IVF64,Flat", "IVF64,PQ64")
MAX_LINKED = 100_000  # vectors; building a larger HNSW index takes hours on two cores


def grown(real: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """``rows`` vectors [rows, D] in fp16: the real ones, then perturbed copies of them in turn."""
    rng, out = np.random.default_rng(seed), np.empty((rows, real.shape[1]), np.float16)
    for first in range(0, rows, 8192):
        places = np.arange(first, min(first + 8192, rows))
        block = real[places % len(real)]
        moved = rng.standard_normal(block.shape, dtype=np.float32)
        moved *= MOVED / np.linalg.norm(moved, axis=1, keepdims=True)
        block = block + np.where(places[:, None] < len(real), 0, moved)
        out[places] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return out


def moved(real: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """``rows`` perturbed copies, without the real vectors."""
    return grown(real, len(real) + rows, seed)[len(real) :]


class Timed:
    """Wall-clock seconds, this process's CPU seconds, and its peak memory in MB."""

    def __enter__(self) -> Timed:
        self.start, self.own = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self.start
        self.processor = time.process_time() - self.own

    def json(self) -> dict[str, float]:
        """The rounded values, for result files."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {
            "seconds": round(self.seconds, 3),
            "processor_seconds": round(self.processor, 3),
            "peak_mb": round(peak),
        }


def compare_exact(
    real: np.ndarray, queries: int, rows: int, k: int, rounds: int, keep: Keep
) -> None:
    """Our exact search and its peers, beside the matrix product of the same tiles alone; ``keep``
    receives the table after every round."""
    x = moved(real, queries, 1).astype(np.float32)
    y = grown(real, rows, 2).astype(np.float32)
    contenders: dict[str, Callable[[], object]] = {
        "bare product": partial(_product, torch.from_numpy(x), torch.from_numpy(y)),
        "xtremely": partial(exact.search, x, y, k),
        "xtremely, both directions": partial(exact.search_both, x, y, k),
        **retrieval_peers.exact_contenders(x, y, k),
    }
    truth = exact.search(x[:200], y, k).ids
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    agreed = {}
    for number in range(rounds):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with Timed() as timed:
                found = contenders[name]()
            spent[name].append(timed.json())
            ids = retrieval_peers.ids_of(found)
            if ids is not None:
                agreed[name] = overlap(ids[:200], truth)
            print(f"exact: round {number + 1}, {name}: {timed.json()}", flush=True)
        keep(_exact_table(spent, agreed, (queries, rows, x.shape[1], k)))


def _exact_table(
    spent: dict[str, list[dict[str, float]]], agreed: dict[str, float], shape: tuple[int, ...]
) -> dict[str, Any]:
    queries, rows, width, k = shape
    flop = 2.0 * queries * rows * width
    base = spent["bare product"]
    return {
        "benchmark": "exact",
        "queries": queries,
        "rows": rows,
        "width": width,
        "k": k,
        "rows_of_table": [
            {
                "name": name,
                "agrees": agreed.get(name),
                "gflops_clock": Spread.of([flop / one["seconds"] / 1e9 for one in runs]).json(1),
                "over_product_clock": _ratio(runs, base, "seconds"),
                "over_product_processor": _ratio(runs, base, "processor_seconds"),
                "runs": runs,
            }
            for name, runs in spent.items()
        ],
    }


def _ratio(runs: list[dict], base: list[dict], key: str) -> dict[str, float]:
    pairs = zip(runs, base, strict=True)
    return Spread.of([own[key] / max(product[key], 1e-9) for own, product in pairs]).json(3)


def _product(x: torch.Tensor, y: torch.Tensor) -> None:
    tile = torch.empty(exact.TILE, exact.TILE)
    for some in x.split(exact.TILE):
        for keys in y.split(exact.TILE):
            torch.mm(some, keys.T, out=tile[: len(some), : len(keys)].contiguous())


def compare_indexes(
    real: np.ndarray, rows: int, queries: int, factories: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Build and search time, memory and recall of exact search and indexes of one size."""
    y, x = grown(real, rows, 2), moved(real, queries, 3).astype(np.float32)
    others, vectors = moved(real, 256, 4).astype(np.float32), UnitRows(y)
    with Timed() as timed:
        truth = exact.search(x, vectors, max(KS)).ids
    head = {"rows": rows, "queries": queries}
    whole = timed.json()
    yield {"index": "exact", **head, "search": whole}
    for pattern in factories:
        factory = pattern.format(lists=2 ** int(np.log2(8 * np.sqrt(rows))))
        if "HNSW" in factory and rows > MAX_LINKED:
            continue
        require_memory(factory, rows, x.shape[1])
        with Timed() as timed:
            made = Index.build(vectors, factory)
        built = timed.json()
        made.tune(others, vectors, 4, 0, 0.98)
        with Timed() as timed:
            ids = made.search(x, max(KS)).ids
        yield {
            "index": factory,
            **head,
            "build": built,
            "effort": made.about.get("effort"),
            **_searched(ids, truth, timed.json(), whole),
            "bytes": len(load_faiss().serialize_index(made.faiss)),
            "bytes_planned": needed(factory, rows, x.shape[1]),
        }
        if gpu_count() and "HNSW" not in factory:
            with Timed() as timed:
                there = made.on_gpus()
            copied = timed.json()
            there.search(x[:1000], max(KS))  # allocates its working memory
            with Timed() as timed:
                ids = there.search(x, max(KS)).ids
            spent = _searched(ids, truth, timed.json(), whole)
            yield {"index": f"{factory} on the GPU", **head, "copy": copied, **spent}
    if rows <= MAX_LINKED:
        with Timed() as timed:
            index = retrieval_peers.usearch_index(y)
        built = timed.json()
        with Timed() as timed:
            ids = retrieval_peers.usearch_search(index, x, max(KS))
        spent = _searched(ids, truth, timed.json(), whole)
        yield {"index": "usearch (HNSW, fp16)", **head, "build": built, **spent}


def _searched(
    ids: np.ndarray, truth: np.ndarray, spent: dict[str, float], whole: dict[str, float]
) -> dict[str, Any]:
    return {
        "search": spent,
        "recall": {str(k): round(overlap(ids[:, :k], truth[:, :k]), 4) for k in KS},
        "times_exact": {
            key: round(whole[key] / max(spent[key], 1e-3), 2)
            for key in ("seconds", "processor_seconds")
        },
    }


def mine_files(x: Path, y: Path, out: Path, factory: str) -> dict[str, Any]:
    """Time and memory of mining two matrices of embeddings."""
    context = MiningContext(_no_engine, _say, lambda rows: nullcontext())
    with Timed() as timed:
        report = mine(x, y, out, out.with_name("work"), MiningSettings(index=factory), context)
    rows = report["source"]["rows"] + report["target"]["rows"]
    return {
        "benchmark": "mine",
        "rows": [len(FileRows(path)) for path in (x, y)],
        "index": report["search"]["index"],
        "pairs": report["pairs"],
        **timed.json(),
        "sentences_per_second": round(rows / timed.seconds, 1),
        "split": report["seconds"],
    }


def _no_engine() -> Engine:
    raise AssertionError("embeddings need no engine")


def _say(what: str, done: int, total: int) -> None:
    if done == total or not done:
        print(f"mining: {what} {done}/{total}", flush=True)


def mine_sets(folder: Path, languages: Sequence[str], model: str) -> Iterator[dict[str, Any]]:
    """Quality on mining sets, from text to pairs. A language's first index includes the time of
    encoding; the others reuse its vectors."""
    load = partial(Engine.load, model)
    for code in languages:
        paths = [folder / f"{code}-en.{side}" for side in (code, "en", "gold")]
        for factory in QUALITY:
            settings = MiningSettings(index=factory, gold=paths[2], threshold=TUNED)
            context = MiningContext(load, _say, lambda rows: nullcontext(lambda *done: None))
            out = folder / "mined" / f"{code}-en.{factory}.tsv"
            report = mine(paths[0], paths[1], out, folder / "mined" / "work", settings, context)
            spent = report["seconds"]
            rows = [report[side]["rows"] for side in ("source", "target")]
            yield {
                "pair": f"{code}-en",
                "index": factory,
                "rows": rows,
                "gold": report["quality"]["gold"],
                "tuned": report["quality"]["at_threshold"],
                "cross_validated": report["quality"]["cross_validated"],
                "threshold": report["threshold"],
                "seconds": spent,
                "sentences_per_second": round(sum(rows) / sum(spent.values()), 1),
            }


class Document:
    """A result file on disk, complete after every step."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        here, found = machine.describe(torch.device("cuda" if gpu_count() else "cpu")), blas()
        date = datetime.now(UTC).date().isoformat()
        stem = f"retrieval-{machine.slug(here['processor'])}-{date}"
        number = sum(path.stem.startswith(stem) for path in folder.glob("*.json"))
        self.path = folder / f"{stem}{f'-{number + 1}' if number else ''}.json"
        self.content: dict[str, Any] = {
            "benchmark": "retrieval",
            "date": date,
            "machine": {
                **here,
                "faiss": load_faiss().__version__,
                "faiss_blas": {"core": found.core, "chosen": found.chosen},
            },
        }

    def keep(self, name: str, value: Any) -> None:
        """Add a result and write everything."""
        load = round(os.getloadavg()[0], 1)
        self.content[name] = value
        self.content.setdefault("load_average_after", {})[name] = load
        self.path.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m xtremely.bench.retrieval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--real", type=Path, help="embeddings of real sentences, .npy")
    parser.add_argument("--sets", type=Path, help="folder that bench.mining_sets wrote")
    parser.add_argument("--languages", default="zh,ru,ar,de,fr")
    parser.add_argument("--model", default="e5-small-4bit")
    parser.add_argument("--only", choices=("exact", "indexes", "mine", "quality"))
    parser.add_argument("--queries", type=int, default=50_000, help="of the exact search")
    parser.add_argument("--rows", type=int, default=200_000, help="of the exact search")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="10000,100000,1000000,3000000")
    parser.add_argument("--factories", default=";".join(FACTORIES), help="separated by ;")
    parser.add_argument("--sample", type=int, default=2000, help="queries of the indexes")
    parser.add_argument("--index", default="auto", help="of mining")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)

    def wanted(name: str) -> bool:
        return given.only in (None, name)

    document = Document(given.out)
    sizes = [int(size) for size in given.sizes.split(",")]
    real = np.empty((0, 0))
    if given.only != "quality":
        require(given.real is not None, "--real is missing: embeddings of real sentences, .npy")
        real = UnitRows(FileRows(given.real))[:]
    if wanted("exact"):
        keep = partial(document.keep, "exact")
        compare_exact(real, given.queries, given.rows, 4, given.rounds, keep)
    if wanted("indexes"):
        found: list[dict[str, Any]] = []
        for size in sizes:
            for result in compare_indexes(real, size, given.sample, given.factories.split(";")):
                found.append(result)
                document.keep("indexes", found)
                print(json.dumps(result), flush=True)
        document.path.with_suffix(".svg").write_text(growth(found), encoding="utf-8")
    if wanted("mine"):
        mined = []
        for size in sizes:
            folder = given.out / f"mine-{size}"
            folder.mkdir(parents=True, exist_ok=True)
            x, y = folder / "x.npy", folder / "y.npy"
            for seed, path in enumerate((x, y), start=1):
                np.save(path, moved(real, size, seed))
            mined.append(mine_files(x, y, folder / "pairs.tsv", given.index))
            document.keep("mine", mined)
    if wanted("quality"):
        require(given.sets is not None, "--sets is missing: see bench.mining_sets")
        mined_sets: list[dict[str, Any]] = []
        for result in mine_sets(given.sets, given.languages.split(","), given.model):
            mined_sets.append(result)
            document.keep("quality", mined_sets)
            print(json.dumps(result), flush=True)
    print(json.dumps({"benchmark": "retrieval", "file": document.path.name}))


if __name__ == "__main__":
    main()
