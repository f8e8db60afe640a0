"""The best answer spans of every sequence: the Triton kernel of ``span``."""

import triton
import triton.language as tl


@triton.jit
def find(
    LOGITS,  # [T, 2] start and end
    MAY_BEGIN,  # [T]
    MAY_END,  # [T]
    CU_SEQLENS,  # [B + 1]
    SCORES,  # [B, best] fp32
    BEGINS,  # [B, best]
    ENDS,  # [B, best]
    row_stride,  # of LOGITS, 2; a ``stride_...`` would be taken for a multiple of 16
    best,
    longest,
    SLOTS: tl.constexpr,  # best, rounded up to a power of two
    WINDOW: tl.constexpr,  # longest, rounded up to a power of two
    BLOCK: tl.constexpr,  # begins processed at a time
):
    """One sequence: repeatedly takes the best span over all begins into a sorted list.

    Each begin keeps its best remaining span as its candidate. On ties the lower begin is taken
    first, then the lower end, and it is inserted after equal scores. All blocks of begins share
    the list.
    """
    sequence = tl.program_id(0).to(tl.int64)
    origin = tl.load(CU_SEQLENS + sequence).to(tl.int64)
    length = (tl.load(CU_SEQLENS + sequence + 1) - origin).to(tl.int32)
    LOGITS += origin * row_stride
    MAY_BEGIN += origin
    MAY_END += origin
    slot, window = tl.arange(0, SLOTS), tl.arange(0, WINDOW)
    before = tl.maximum(slot - 1, 0)
    scores = tl.full([SLOTS], float("-inf"), tl.float32)
    begins = tl.full([SLOTS], -1, tl.int32)
    ends = tl.full([SLOTS], -1, tl.int32)
    for start in range(0, length, BLOCK):
        first = start + tl.arange(0, BLOCK)
        opening = _logit(LOGITS, MAY_BEGIN, first, first < length, row_stride)
        offer = tl.full([BLOCK], float("-inf"), tl.float32)
        last = tl.full([BLOCK], -1, tl.int32)
        for offset in range(longest):
            until = first + offset
            rival = opening + _logit(LOGITS + 1, MAY_END, until, until < length, row_stride)
            better = rival > offer
            offer = tl.where(better, rival, offer)
            last = tl.where(better, until, last)
        for _ in range(best):
            score, at = tl.max(offer, 0, return_indices=True)
            begin = start + at
            own = first == begin
            end = tl.sum(tl.where(own, last, 0), 0)
            place = tl.sum((scores >= score).to(tl.int32), 0)  # past the list if none is left
            scores = _insert(scores, score, place, slot, before)
            begins = _insert(begins, begin, place, slot, before)
            ends = _insert(ends, end, place, slot, before)
            follow = begin + window
            inside = (window < longest) & (follow < length)
            closing = _logit(LOGITS + 1, MAY_END, follow, inside, row_stride)
            sums = tl.load(LOGITS + begin.to(tl.int64) * row_stride).to(tl.float32) + closing
            later = (sums < score) | ((sums == score) & (follow > end))
            score, at = tl.max(tl.where(later, sums, float("-inf")), 0, return_indices=True)
            offer = tl.where(own, score, offer)
            last = tl.where(own, begin + at, last)
    target, mask = sequence * best + slot, slot < best
    tl.store(SCORES + target, scores, mask=mask)
    tl.store(BEGINS + target, begins, mask=mask)
    tl.store(ENDS + target, ends, mask=mask)


@triton.jit
def _logit(LOGITS, LEGAL, row, inside, row_stride):
    """A column of the logits in fp32; -inf at illegal tokens."""
    legal = tl.load(LEGAL + row, mask=inside, other=0)
    source = LOGITS + row.to(tl.int64) * row_stride
    return tl.load(source, mask=legal, other=float("-inf")).to(tl.float32)


@triton.jit
def _insert(values, value, place, slot, before):
    """Insert a value into the list at ``place`` and move later entries back by one."""
    moved = tl.where(slot == place, value, tl.gather(values, before, 0))
    return tl.where(slot < place, values, moved)
