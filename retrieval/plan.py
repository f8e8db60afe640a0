"""Chooses an index for a number of vectors, and estimates its memory, before anything is built.

The rule, for N rows in the base and M queries of D dimensions:

- exact search up to ``EXACT`` operations (2 N M D): 10^14 on a CPU (a quarter of an hour at
  100 GFLOP/s), 10^19 on a GPU (seven hours of an H100, 10^8 against 10^8 at 512 dimensions)
- above, ``IVF`` with 4 to 8 sqrt(N) lists, as in FAISS's guidelines and NLLB's mining. Vectors are
  stored as the first of Flat, SQfp16, SQ8, and PQ64 after an OPQ rotation, that fits into half of
  the free memory.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from xtremely.kernels.guard import UsageError, require, require_number

EXACT = {"cpu": 1e14, "cuda": 1e19}
MAX_LISTS = 262_144  # as NLLB uses for more than 500 million vectors
TRAIN_PER_LIST = 64  # training vectors per list; FAISS warns below 39
EXACT_NAME = "exact"
GIB = 2**30
MAX_WIDTH = 2**16  # dimensions, and numbers in a description that are not in _LEGAL
# Text before a number in FAISS's descriptions -> the number's smallest and largest legal value.
_LEGAL = {"IVF": (1, 2**20), "HNSW": (2, 512), "NSG": (8, 512), "x": (1, 16), "IMI2x": (1, 12)}
_NUMBER = re.compile(r"(IMI2x|x(?=\d)|[A-Za-z]*)(\d+)")
_CHARACTERS = re.compile(r"[A-Za-z0-9_,().]+")
_USUAL = re.compile(
    r"((OPQ\d+(_\d+)?|PCAR?\d+),)?(IVF\d+,)?(Flat|SQ(4|6|8|fp16|bf16)|PQ\d+(x4fsr?|x\d+)?(np)?)"
    r"|HNSW\d+(,Flat)?"
)
TRIAL = 120.0  # seconds
TRIAL_ROWS = 1000  # most random vectors that a trial trains on
TRIAL_ADDED = 300  # how many of them it adds
_FAILED, _UNTRAINED = 3, 4  # exit codes: cannot be filled or searched; too few to train
_TRIAL = """
import sys, numpy as np
from xtremely.retrieval.blas import load_faiss
from xtremely.retrieval.index import leave_codes_unordered
faiss, width, given, part = load_faiss(), *map(int, sys.argv[3:6])
index = faiss.index_factory(width, sys.argv[1], faiss.METRIC_INNER_PRODUCT)
leave_codes_unordered(index)
rows = np.random.default_rng(0).normal(size=(given, width)).astype("f4")
few = given < int(sys.argv[6])
try:
    if not index.is_trained:
        index.train(rows)
except RuntimeError as error:
    print(error)
    sys.exit(int(sys.argv[2]) + 1 if few else 0)  # more vectors may do
try:
    if part:
        index = faiss.clone_index(index)
        index.reset()
    index.add(rows[: part or int(sys.argv[7])])
    index.search(rows[:3], 1)
except RuntimeError as error:
    print(error)
    sys.exit(int(sys.argv[2]))
"""


@dataclass(frozen=True)
class Plan:
    """An index to be built.

    Attributes:
        factory: FAISS's description of it, or ``exact`` for no index.
        why: the reason for the choice, as text.
        bytes: memory that it takes at most, while it is built.
    """

    factory: str
    why: str
    bytes: int


def choose(rows: int, queries: int, width: int, device: str = "cpu", free: int = 0) -> Plan:
    """Choose an index by the rule at the top of the file.

    Args:
        rows: vectors in the base.
        queries: vectors to search for.
        width: dimensions of a vector.
        device: ``cpu`` or ``cuda``.
        free: free memory in bytes; by default this machine's.
    """
    work = 2.0 * rows * queries * width
    if work <= EXACT[device]:
        return Plan(EXACT_NAME, f"{work:.1e} operations are soon done exactly", 0)
    room = (free or available()) // 2
    lists = min(MAX_LISTS, 2 ** math.floor(math.log2(8 * math.sqrt(rows))))
    kinds = ("Flat", "SQfp16", "SQ8")
    names = [f"IVF{lists},{kind}" for kind in kinds] + [f"{_compressed(width)}IVF{lists},PQ64"]
    plans = [(name, needed(name, rows, width)) for name in names]
    name, size = next((plan for plan in plans if plan[1] <= room), plans[-1])
    return Plan(name, f"{work:.1e} operations are too many to do exactly", size)


def _compressed(width: int) -> str:
    return "OPQ64," if width % 64 == 0 else "OPQ64_512," if width > 512 else "OPQ64_256,"


def needed(factory: str, rows: int, width: int) -> int:
    """Bytes that an index takes while it is built: vectors, ids, lists, links and training."""
    inner = width
    if rotated := re.search(r"(?:OPQ\d+_|PCAR?)(\d+)", factory):
        inner = int(rotated[1])
    size = rows * _code_bytes(factory, inner)
    if lists := re.search(r"IVF(\d+)", factory):
        size += 8 * rows + 4 * inner * int(lists[1])
    if links := re.search(r"HNSW(\d+)", factory):
        size += rows * (8 * int(links[1]) + 32)
    return size + 4 * width * train_rows(factory, rows)


def _code_bytes(factory: str, inner: int) -> int:
    last = factory.split(",")[-1]
    if product := re.fullmatch(r"PQ(\d+)(?:x(\d+)(?:fsr?)?)?", last):
        return int(product[1]) * int(product[2] or 8) // 8
    return {"SQfp16": 2, "SQbf16": 2, "SQ8": 1}.get(last, 4) * inner


def train_rows(factory: str, rows: int) -> int:
    """Number of vectors that an index is trained on."""
    lists = re.search(r"IVF(\d+)", factory)
    wanted = TRAIN_PER_LIST * int(lists[1]) if lists else 0
    if "PQ" in factory:
        wanted = max(wanted, 65_536)
    if "SQ8" in factory:
        wanted = max(wanted, 16_384)
    return min(rows, wanted)


def require_memory(factory: str, rows: int, width: int, shards: int = 1) -> None:
    """Raise InputError, with an alternative, if the index of one shard does not fit into memory."""
    require_number("shards", shards, 1)
    here = -(-rows // shards)
    size, free = needed(factory, here, width), available()
    if size <= free:
        return
    smaller = choose(here, 10**12, width, free=2 * free)
    options = []
    if smaller.bytes < free and smaller.factory != factory:
        options.append(f"--index {smaller.factory}")
    fitting = next((n for n in range(2, 4097) if needed(factory, -(-rows // n), width) < free), 0)
    if fitting:
        options.append(f"--shards {fitting}")
    require(
        False,
        f"{factory} over {here:,} vectors needs {size / GIB:.1f} GiB, {free / GIB:.1f} are free:"
        f" use {' or '.join(options) or 'a larger machine'}",
    )


def device() -> str:
    """The device on which an exact search runs on this machine."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def available() -> int:
    """Bytes of memory that are free without swapping, on this machine or in this container."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
        free = int(found[1]) * 1024 if found else 2**62
    except OSError:
        free = 2**62
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except OSError:
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def least_rows(factory: str) -> int:
    """Fewest vectors on which FAISS can train the index: one for each of its centroids."""
    lists = [int(number) for number in re.findall(r"IVF(\d+)", factory)]
    codes = [2 ** int(bits or 8) for bits in re.findall(r"PQ\d+(?:x(\d+))?", factory)]
    return max([1, *lists, *codes])


def check_factory(factory: str, width: int, rows: int = TRIAL_ROWS, part: int = 0) -> None:
    """Raise UsageError unless FAISS can build and search the index without crashing.

    FAISS checks little: HNSW0 and PQ8x0 end the process. So numbers are checked here, and unusual
    kinds are first tried in another process on random vectors.

    Args:
        factory: FAISS's description.
        width: dimensions of a vector.
        rows: number of training vectors.
        part: vectors in the smallest shard, for an index that is copied for each shard; 0 for one
            that holds all vectors.
    """
    from xtremely.retrieval.blas import load_faiss

    require_number("the vectors' width", width, 1, MAX_WIDTH)
    complaint = _odd_number(factory)
    for kept in re.findall(r"PCA[RW]*(\d+)", factory):
        if int(kept[:10]) > width:
            complaint = complaint or f"no PCA keeps {kept} of {width} dimensions"
    if not complaint:
        faiss = load_faiss()
        try:
            faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            complaint = faiss_reason(error)
    if not complaint and not _USUAL.fullmatch(factory):
        complaint = _tried(factory, width, min(rows, TRIAL_ROWS), min(part, TRIAL_ADDED))
    if complaint:
        named = factory if len(factory) <= 80 else f"{factory[:77]}..."
        raise UsageError(
            f"FAISS cannot make {named!r} of {width} dimensions ({complaint}); legal: auto, exact,"
            " Flat, SQfp16, IVF1024,Flat, OPQ64,IVF16384,PQ64, HNSW32 and whatever FAISS's"
            " index_factory takes"
        )


def faiss_reason(error: object) -> str:
    """The reason in an error message of FAISS, without its C++ details."""
    text = str(error).strip().splitlines()[-1] if str(error).strip() else "it gives no reason"
    text = re.sub(r"^Error in .*? at \S+:\d+: ", "", text)
    text = re.sub(r"^(?:Error: )?'.*?' failed:? ?", "", text).strip() or text
    text = re.sub(r"PCA matrix cannot output \d+ dimensions from \d+", "take more", text)
    text = text.replace("NNDescent.build cannot build", "it cannot build")
    return textwrap.shorten(text, 160, placeholder=" ...")


def _odd_number(factory: str) -> str:
    """The first fault in a description's characters or numbers; empty if there is none."""
    if not _CHARACTERS.fullmatch(factory):
        return "legal characters: letters, digits, and _ , ( ) ."
    for kind, number in _NUMBER.findall(factory):
        least, most = _LEGAL.get(kind, (1, MAX_WIDTH))
        if len(number) > 9 or not least <= int(number) <= most:
            return f"{kind}{number[:20]} is not legal: {least:,} to {most:,}"
    return ""


@cache
def _tried(factory: str, width: int, rows: int, part: int) -> str:
    """The error when another process builds and searches a small such index; empty if none."""
    numbers = (_FAILED, width, rows, part, TRIAL_ROWS, TRIAL_ADDED)
    arguments = [sys.executable, "-c", _TRIAL, factory, *map(str, numbers)]
    try:
        done = subprocess.run(arguments, capture_output=True, timeout=TRIAL, text=True)
    except subprocess.TimeoutExpired:
        return "FAISS never ends with it"
    if done.returncode == _UNTRAINED:
        return f"it cannot be trained with {rows:,} vectors: {faiss_reason(done.stdout)}"
    if done.returncode == _FAILED:
        return faiss_reason(done.stdout)
    return "FAISS crashes with it" if done.returncode < 0 else ""
