// Attention of one head in one sequence, softmax included.
#pragma once

#include <vector>

#include "products.h"

// What attention needs besides its inputs; grows to the longest sequence seen.
struct Room {
  std::vector<float> keys, values, scores;
};

// Queries or keys of one head, [length, dim], each turned by its position's angles, of which `rope`
// [length, dim] has the cosines, then the sines.
inline void turn(float* x, const float* rope, int64_t length, int64_t dim) {
  int64_t half = dim / 2;
  for (int64_t j = 0; j < length * dim; j += dim)
    for (int64_t c = j; c < j + half; c += W) {
      V near = load(x + c), far = load(x + c + half);
      V cosine = load(rope + c), sine = load(rope + c + half);
      store(x + c, near * cosine - far * sine);
      store(x + c + half, far * cosine + near * sine);
    }
}

// Scores of keys `first` to `last` of a row to their shares, times a sum that is returned; other
// keys from `from` to `to` get none.
inline float softmax(float* row, int64_t from, int64_t to, int64_t first, int64_t last,
                     float scale) {
  // Whole vectors of keys that are seen, and those at either end, some of whose keys are not.
  int64_t begin = (first + W - 1) / W * W, end = std::max(begin, last / W * W);
  auto ends = [&](auto work) {
    auto one = [&](int64_t j) {
      I at = LANE + int32_t(j);
      work(j, at >= int32_t(first) & at < int32_t(last));
    };
    for (int64_t j = from; j < begin; j += W) one(j);
    for (int64_t j = end; j < to; j += W) one(j);
  };
  V most = all(row[first]);
  ends([&](int64_t j, I seen) { most = greater(most, seen ? load(row + j) : most); });
  for (int64_t j = begin; j < end; j += W) most = greater(most, load(row + j));
  V factor = all(scale * LOG2E), top = all(largest(most)) * factor, total = all(0.f);
  for (int64_t j = begin; j < end; j += W) {
    V share = power(load(row + j) * factor - top);
    total += share;
    store(row + j, share);
  }
  ends([&](int64_t j, I seen) {
    V share = seen ? power(load(row + j) * factor - top) : all(0.f);
    total += share;
    store(row + j, share);
  });
  return sum(total);
}

// Queries, keys and values of one head, each [length, dim], to [length, dim] in rows of `stride`;
// a token sees `window` others to either side.
// Not inlined: inside the loop over layers g++ 12 made it a third slower.
__attribute__((noinline)) inline void attention(const float* q, const float* k, const float* v,
                                                int64_t length, int64_t dim, int64_t window,
                                                float* out, int64_t stride, Room& room) {
  int64_t padded = (length + N - 1) / N * N;
  room.keys.resize(padded * dim);
  room.values.resize(length * dim);
  room.scores.resize(R * padded);
  float *keys = room.keys.data(), *values = room.values.data(), *scores = room.scores.data();
  static const float zeros[N] = {};
  float scale = 1 / __builtin_sqrtf(float(dim));
  // keys to panels [padded / N, dim, N], values to panels [dim / N, length, N]
  for (int64_t j = 0; j < length; j++) {
    float* to = keys + j / N * N * dim + j % N;
    for (int64_t c = 0; c < dim; c++) to[c * N] = k[j * dim + c];
    for (int64_t c = 0; c < dim; c += N)
      std::memcpy(values + c * length + j * N, v + j * dim + c, sizeof(float) * N);
  }
  by_tiles(length, [&](int64_t row, auto rows) {
    // Keys that some token of the tile sees, from the head of a panel on.
    int64_t from = std::max<int64_t>(0, row - window) / N * N;
    int64_t to = std::min(length, row + rows.value + window);
    for (int64_t j = from; j < to; j += N)
      tile<rows.value>(q + row * dim, dim, keys + j * dim, dim, zeros, scores + j, padded, Same());
    float sums[rows.value];
    for (int64_t r = 0, t = row; r < rows.value; r++, t++)
      sums[r] = softmax(scores + r * padded, from, to, std::max<int64_t>(0, t - window),
                        std::min(length, t + window + 1), scale);
    float* mixed = out + row * stride;
    for (int64_t c = 0; c < dim; c += N)
      tile<rows.value>(scores + from, padded, values + c * length + from * N, to - from, zeros,
                       mixed + c, stride, Same());
    for (int r = 0; r < rows.value; r++)
      for (float* c = mixed + r * stride; c < mixed + r * stride + dim; c += W)
        store(c, load(c) * (1 / sums[r]));
  });
}
