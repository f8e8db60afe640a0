"""Largest inner products without the score matrix: the Triton kernel of ``topk``.

A score and an index are packed into one integer (a key): higher is better, ties go to the lower
index. A list holds the ``count`` best keys of a row or column so far, unsorted, and after them a
floor, a lower bound of all of them. Entries and floors only ever rise, so a stale read is still a
lower bound. Keys are inserted by atomic maximum, which returns the key that it replaced, so none is
lost. The final lists do not depend on the order of tiles or on how many run at the same time.
"""

import triton
import triton.language as tl

# Rounds between reads of the floors, which rise fast at first.
ROUNDS_BETWEEN_READS = tl.constexpr(4)


@triton.jit
def ordered(bits):
    """Map the bits of a float to an integer of the same order, or back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def packed(score, index):
    """Pack a score and an index into one key; -0 becomes 0."""
    bits = ordered((score + 0.0).to(tl.int32, bitcast=True))
    return (bits.to(tl.int64) << 32) | (~index).to(tl.int64) & 0xFFFFFFFF


@triton.jit
def bar(LISTS, owner, there, count, first):
    """The lowest score with which indices from ``first`` on can still enter the owners' lists."""
    place = LISTS + owner.to(tl.int64) * (count + 1) + count
    floor = tl.load(place, mask=there, other=0, cache_modifier=".cg")
    higher = ((floor + first - 0xFFFFFFFF) >> 32) + 1
    return ordered(higher.to(tl.int32)).to(tl.float32, bitcast=True)


@triton.jit
def insert(key, owner, wanted, LISTS, count):
    """Replace the worst key of the owner's list by each wanted key that is better."""
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
    # If another program was faster, the replaced key may be better than another entry. It is then
    # offered to every entry; the key that remains is worse than all of them.
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
    """One tile of scores; only scores that can enter a list leave the registers.

    Each round takes the best such score of every row and offers it to the lists of its row and of
    its column. Most tiles need one round or none.
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
            # The gather distributes floors that are read once; else each thread reads many.
            of_column = tl.gather(of_column, tl.arange(0, BLOCK_N), 0)
            needed = tl.minimum(needed, of_column[None, :])
        scores = tl.where(scores >= needed, scores, float("-inf"))
        top = tl.max(tl.max(scores, 1), 0)
        turn = 0
        while (top > float("-inf")) & (turn < ROUNDS_BETWEEN_READS):
            best = tl.max(scores, 1)
            at = tl.min(tl.where(scores == best[:, None], n[None, :], 0x7FFFFFFF), 1)
            scores = tl.where(n[None, :] != at[:, None], scores, float("-inf"))
            top = tl.max(tl.max(scores, 1), 0)  # here, as insert does not change the tile
            wanted = best > float("-inf")
            key, owner = packed(best, at), m
            if BOTH:
                key = interleaved(key, packed(best, m))
                owner = interleaved(owner, rows + at)
                wanted = interleaved(wanted, wanted)
            insert(key, owner, wanted, LISTS, count)
            turn += 1
