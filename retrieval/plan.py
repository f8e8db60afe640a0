"""Which index suits how many vectors, and how much memory it will take, before anything is built.

The rule, with N rows in the base and M queries of D dimensions:

- exact while 2 N M D operations are worth less than ``EXACT``: 10^14 on a CPU (a quarter of an
  hour at 100 GFLOP/s), 10^19 on a GPU (seven hours of an H100, 10^8 against 10^8 at 512)
- beyond, ``IVF`` with 4 to 8 sqrt(N) lists, as FAISS's guidelines and NLLB's mining have it. What
  it keeps of a vector is the first of Flat, SQfp16, SQ8 and PQ64 behind an OPQ rotation that fits
  into half of the memory that is free.
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
MAX_LISTS = 262_144  # NLLB's, for more than 500 million
TRAIN_PER_LIST = 64  # vectors; FAISS complains below 39
EXACT_NAME = "exact"
GIB = 2**30
MAX_WIDTH = 2**16  # dimensions, and any number of a description that has no bounds of its own
# Numbers that FAISS's descriptions may hold, by what stands before them: least and most.
_LEGAL = {"IVF": (1, 2**20), "HNSW": (2, 512), "NSG": (8, 512), "x": (1, 16), "IMI2x": (1, 12)}
_NUMBER = re.compile(r"(IMI2x|x(?=\d)|[A-Za-z]*)(\d+)")
_CHARACTERS = re.compile(r"[A-Za-z0-9_,().]+")
_USUAL = re.compile(
    r"((OPQ\d+(_\d+)?|PCAR?\d+),)?(IVF\d+,)?(Flat|SQ(4|6|8|fp16|bf16)|PQ\d+(x4fsr?|x\d+)?(np)?)"
    r"|HNSW\d+(,Flat)?"
)
TRIAL = 120.0  # seconds
TRIAL_ROWS = 1000  # vectors that are made up for a trial at most
TRIAL_ADDED = 300  # of which so many are added
_FAILED, _UNTRAINED = 3, 4  # exit codes: cannot be filled or searched; trained with so few
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
        factory: FAISS's description of it, or ``exact``: no index.
        why: the reason, for people.
        bytes: memory that it takes, what building it takes included.
    """

    factory: str
    why: str
    bytes: int


def choose(rows: int, queries: int, width: int, device: str = "cpu", free: int = 0) -> Plan:
    """The index for ``rows`` vectors of ``width`` dimensions; see the top of the file.

    Args:
        rows: vectors in the base.
        queries: how many will be searched for.
        width: dimensions.
        device: ``cpu`` or ``cuda``.
        free: bytes of memory; by default what this machine has.
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
    """Bytes that an index takes while it is built: vectors, ids, lists, links, training."""
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
    """Vectors that training takes."""
    lists = re.search(r"IVF(\d+)", factory)
    wanted = TRAIN_PER_LIST * int(lists[1]) if lists else 0
    if "PQ" in factory:
        wanted = max(wanted, 65_536)
    if "SQ8" in factory:
        wanted = max(wanted, 16_384)
    return min(rows, wanted)


def require_memory(factory: str, rows: int, width: int, shards: int = 1) -> None:
    """Raise InputError, with what would fit, if an index of a shard does not fit into memory."""
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
    """What an exact search runs on here."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def available() -> int:
    """Bytes of memory that can be had without swapping, here or in this container."""
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
    """Vectors without which FAISS cannot train the index: one for each of its centroids."""
    lists = [int(number) for number in re.findall(r"IVF(\d+)", factory)]
    codes = [2 ** int(bits or 8) for bits in re.findall(r"PQ\d+(?:x(\d+))?", factory)]
    return max([1, *lists, *codes])


def check_factory(factory: str, width: int, rows: int = TRIAL_ROWS, part: int = 0) -> None:
    """Raise UsageError unless FAISS can make the index, and survives it.

    FAISS checks little: HNSW0 and PQ8x0 end the process. So numbers are checked here, and kinds
    that are not among the usual ones are tried in a process of their own first, on vectors that
    are made up.

    Args:
        factory: FAISS's description.
        width: dimensions.
        rows: vectors that it is trained with.
        part: vectors of the smallest part of a base, for an index that is copied for each of
            them; 0 for one that holds all vectors itself.
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
    """What an error of FAISS says, without the C++ around it."""
    text = str(error).strip().splitlines()[-1] if str(error).strip() else "it gives no reason"
    text = re.sub(r"^Error in .*? at \S+:\d+: ", "", text)
    text = re.sub(r"^(?:Error: )?'.*?' failed:? ?", "", text).strip() or text
    text = re.sub(r"PCA matrix cannot output \d+ dimensions from \d+", "take more", text)
    text = text.replace("NNDescent.build cannot build", "it cannot build")
    return textwrap.shorten(text, 160, placeholder=" ...")


def _odd_number(factory: str) -> str:
    """What is wrong with a number in the description; nothing if all are legal."""
    if not _CHARACTERS.fullmatch(factory):
        return "legal characters: letters, digits, and _ , ( ) ."
    for kind, number in _NUMBER.findall(factory):
        least, most = _LEGAL.get(kind, (1, MAX_WIDTH))
        if len(number) > 9 or not least <= int(number) <= most:
            return f"{kind}{number[:20]} is not legal: {least:,} to {most:,}"
    return ""


@cache
def _tried(factory: str, width: int, rows: int, part: int) -> str:
    """What goes wrong when a process builds and searches a small index like it; perhaps nothing."""
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
