// Attention of one head in one sequence.
#pragma once

#include "products.h"

constexpr float ZEROS[TILE_COLS] = {};

// Scratch memory for attention; it grows to the longest sequence so far.
struct AttentionBuffers {
  Buffer<float> keys, values, scores;
};

// Applies RoPE to queries or keys of one head, [length, dim]. A row of `rope` [length, dim] has the
// cosines of the angles, then the sines.
inline void apply_rope(float* x, const float* rope, int64_t length, int64_t dim) {
  int64_t half = dim / 2;
  for (int64_t j = 0; j < length * dim; j += dim)
    for (int64_t c = j; c < j + half; c += LANES) {
      F32 near = load(x + c), far = load(x + c + half);
      F32 cosine = load(rope + c), sine = load(rope + c + half);
      store(x + c, near * cosine - far * sine);
      store(x + c + half, far * cosine + near * sine);
    }
}

// Unnormalised softmax of one row over keys `first` to `last`; returns the sum of the weights.
// Calls `keep` with LANES keys from `from` to `to` and their weights; other keys' weights are 0.
// Inlined so that what `keep` updates stays in registers.
template <class Keep>
__attribute__((always_inline)) inline float softmax(const float* row, int64_t from, int64_t to,
                                                    int64_t first, int64_t last, float scale,
                                                    Keep keep) {
  // Full vectors of visible keys, and vectors at either end that are only partly visible.
  int64_t begin = (first + LANES - 1) / LANES * LANES, end = std::max(begin, last / LANES * LANES);
  auto ends = [&](auto work) {
    auto one = [&](int64_t j) {
      I32 at = LANE_INDEX + int32_t(j);
      work(j, (at >= int32_t(first)) & (at < int32_t(last)));
    };
    for (int64_t j = from; j < begin; j += LANES) one(j);
    for (int64_t j = end; j < to; j += LANES) one(j);
  };
  F32 most = broadcast(row[first]);
  ends([&](int64_t j, I32 visible) { most = maximum(most, visible ? load(row + j) : most); });
  for (int64_t j = begin; j < end; j += LANES) most = maximum(most, load(row + j));
  F32 factor = broadcast(scale * LOG2E), top = broadcast(reduce_max(most)) * factor,
      total = broadcast(0.f);
  for (int64_t j = begin; j < end; j += LANES) {
    F32 weight = exp2(load(row + j) * factor - top);
    total += weight;
    keep(j, weight);
  }
  ends([&](int64_t j, I32 visible) {
    F32 weight = visible ? exp2(load(row + j) * factor - top) : broadcast(0.f);
    total += weight;
    keep(j, weight);
  });
  return reduce_sum(total);
}

// Attention of queries, keys and values of one head, each [length, dim], to [length, dim] with row
// stride `stride`. A token attends to `window` tokens on either side.
// Not inlined: in the loop over layers, g++ 12 made it a third slower.
__attribute__((noinline)) inline void attention(const float* q, const float* k, const float* v,
                                                int64_t length, int64_t dim, int64_t window,
                                                float* out, int64_t stride,
                                                AttentionBuffers& buffers) {
  int64_t padded = (length + TILE_COLS - 1) / TILE_COLS * TILE_COLS;
  buffers.keys.resize(padded * dim);
  buffers.values.resize(length * dim);
  buffers.scores.resize(TILE_ROWS * padded);
  float *keys = buffers.keys.data(), *values = buffers.values.data(),
        *scores = buffers.scores.data();
  float scale = 1 / __builtin_sqrtf(float(dim));
  // keys to panels [padded / TILE_COLS, dim, TILE_COLS], values to panels [dim / TILE_COLS, length,
  // TILE_COLS]
  for (int64_t j = 0; j < length; j++) {
    float* to = keys + j / TILE_COLS * TILE_COLS * dim + j % TILE_COLS;
    for (int64_t c = 0; c < dim; c++) to[c * TILE_COLS] = k[j * dim + c];
    for (int64_t c = 0; c < dim; c += TILE_COLS)
      std::memcpy(values + c * length + j * TILE_COLS, v + j * dim + c, sizeof(float) * TILE_COLS);
  }
  by_tiles(length, [&](int64_t row, auto rows) {
    // Keys that are visible to a token of the tile, rounded down to the start of a panel.
    int64_t from = std::max<int64_t>(0, row - window) / TILE_COLS * TILE_COLS;
    int64_t to = std::min(length, row + rows.value + window);
    for (int64_t j = from; j < to; j += TILE_COLS)
      tile<rows.value>(q + row * dim, dim, keys + j * dim, dim, ZEROS, scores + j, padded,
                       Identity());
    float sums[rows.value];
    for (int64_t r = 0, t = row; r < rows.value; r++, t++) {
      float* score = scores + r * padded;
      sums[r] = softmax(score, from, to, std::max<int64_t>(0, t - window),
                        std::min(length, t + window + 1), scale,
                        [&](int64_t j, F32 weight) { store(score + j, weight); });
    }
    float* mixed = out + row * stride;
    for (int64_t c = 0; c < dim; c += TILE_COLS)
      tile<rows.value>(scores + from, padded, values + c * length + from * TILE_COLS, to - from,
                       ZEROS, mixed + c, stride, Identity());
    for (int r = 0; r < rows.value; r++)
      for (float* c = mixed + r * stride; c < mixed + r * stride + dim; c += LANES)
        store(c, load(c) * (1 / sums[r]));
  });
}
