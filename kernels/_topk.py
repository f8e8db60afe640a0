"""Largest inner products without their matrix: the Triton code of ``topk``.

A score and an index make one whole number, the higher the better, ties broken by the lower index.
A list is the ``count`` best such numbers that a row or a column has met, in no order, and behind
them a floor that none of them lies below. All of these only ever rise, so what is read of them,
however old, is a lower bound; and numbers go in by an atomic maximum, which hands out what it
takes the place of, so none is lost. The lists end the same in whatever order tiles are done, and
however many at a time.
"""

import triton
import triton.language as tl

TURNS = tl.constexpr(4)  # rounds between looks at the floors, which rise fast at first


@triton.jit
def ordered(bits):
    """Bits of a float to a whole number of the same order, and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def packed(score, index):
    """A score and an index as one number; zeros lose their sign."""
    bits = ordered((score + 0.0).to(tl.int32, bitcast=True))
    return (bits.to(tl.int64) << 32) | (~index).to(tl.int64) & 0xFFFFFFFF


@triton.jit
def bar(LISTS, owner, there, count, first):
    """The lowest score with which indices from ``first`` on may still enter the owners' lists."""
    place = LISTS + owner.to(tl.int64) * (count + 1) + count
    floor = tl.load(place, mask=there, other=0, cache_modifier=".cg")
    higher = ((floor + first - 0xFFFFFFFF) >> 32) + 1
    return ordered(higher.to(tl.int32)).to(tl.float32, bitcast=True)


@triton.jit
def insert(key, owner, wanted, LISTS, count):
    """Give each wanted key the place of the worst in its owner's list, if it is better."""
    places = LISTS + owner.to(tl.int64) * (count + 1)
    worst = tl.full(key.shape, 0x7FFFFFFFFFFFFFFF, tl.int64)
    second = worst
    at = tl.zeros(key.shape, tl.int32)
    for place in range(count):
        held = tl.load(places + place, mask=wanted, cache_modifier=".cg")
        at = tl.where(held < worst, place, at)
        second = tl.minimum(second, tl.maximum(worst, held))
        worst = tl.minimum(worst, held)
    wanted &= key > worst
    old = tl.atomic_max(places + at, key, mask=wanted, sem="relaxed")
    tl.atomic_max(places + count, tl.minimum(second, key), mask=wanted, sem="relaxed")
    # Where another program was faster, what came out may still be better than something: it goes
    # past all places, and what is left is worse than every one of them.
    wanted &= old != worst
    if tl.max(wanted.to(tl.int32), 0) > 0:
        key = tl.minimum(key, old)
        for place in range(count):
            old = tl.atomic_max(places + place, key, mask=wanted, sem="relaxed")
            key = tl.minimum(key, old)


@triton.jit
def interleaved(a, b):
    return tl.reshape(tl.join(a, b), [2 * a.shape[0]])


@triton.jit(do_not_specialize=["rows", "columns", "count"])
def search(
    X,  # [rows, K]
    Y,  # [columns, K]
    LISTS,  # [rows (+ columns), count + 1]
    rows,
    columns,
    K,
    count,
    stride_x,
    stride_y,
    BOTH: tl.constexpr,  # whether columns have lists too
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,  # row tiles that share a column tile in the cache
    DOT: tl.constexpr,
):
    """A tile of scores, of which only those that some list wants leave the registers.

    A round takes the best wanted score of every row out of the tile and offers it to the lists of
    its row and of its column. Most tiles need one round or none.
    """
    tile = tl.program_id(0)
    tiles_m, tiles_n = tl.cdiv(rows, BLOCK_M), tl.cdiv(columns, BLOCK_N)
    in_group = GROUP * tiles_n
    group = tile // in_group * GROUP
    high = tl.minimum(tiles_m - group, GROUP)
    first_m = (group + tile % in_group % high) * BLOCK_M
    first_n = tile % in_group // high * BLOCK_N
    m, n = first_m + tl.arange(0, BLOCK_M), first_n + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    x = X + (m % rows).to(tl.int64)[:, None] * stride_x + k[None, :]
    y = Y + (n % columns).to(tl.int64)[:, None] * stride_y + k[None, :]
    scores = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        left = (k < K - start)[None, :]
        a = tl.load(x + start, mask=left, other=0.0)
        b = tl.load(y + start, mask=left, other=0.0)
        scores = tl.dot(a, tl.trans(b), scores, input_precision=DOT)
    scores = tl.where((m < rows)[:, None] & (n < columns)[None, :], scores, float("-inf"))
    top = float("inf")
    while top > float("-inf"):
        needed = bar(LISTS, m, m < rows, count, first_n)[:, None]
        if BOTH:
            of_column = bar(LISTS, rows + n, n < columns, count, first_m)
            # Read once and handed round: without this gather every thread reads many floors.
            of_column = tl.gather(of_column, tl.arange(0, BLOCK_N), 0)
            needed = tl.minimum(needed, of_column[None, :])
        scores = tl.where(scores >= needed, scores, float("-inf"))
        top = tl.max(tl.max(scores, 1), 0)
        turn = 0
        while (top > float("-inf")) & (turn < TURNS):
            best = tl.max(scores, 1)
            at = tl.min(tl.where(scores == best[:, None], n[None, :], 0x7FFFFFFF), 1)
            scores = tl.where(n[None, :] != at[:, None], scores, float("-inf"))
            top = tl.max(tl.max(scores, 1), 0)  # here: the tile is at rest while lists are written
            wanted = best > float("-inf")
            key, owner = packed(best, at), m
            if BOTH:
                key = interleaved(key, packed(best, m))
                owner = interleaved(owner, rows + at)
                wanted = interleaved(wanted, wanted)
            insert(key, owner, wanted, LISTS, count)
            turn += 1
