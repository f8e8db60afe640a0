// Attention of one head in one sequence, softmax included.
#pragma once

#include <vector>

#include "products.h"

// What attention needs besides its inputs; grows to the longest sequence seen.
struct Room {
  std::vector<float> keys, values, scores;
};

// The first `length` of a row to their shares, times a sum that is returned.
inline float softmax(float* row, int64_t length, float scale) {
  int64_t whole = length / W * W;
  int32_t rest = int32_t(length - whole);
  V last = LANE < rest ? load(row + whole) : all(row[0]), most = last;
  for (int64_t j = 0; j < whole; j += W) most = greater(most, load(row + j));
  V factor = all(scale * LOG2E), top = all(largest(most)) * factor, total = all(0.f);
  for (int64_t j = 0; j < whole; j += W) {
    V share = power(load(row + j) * factor - top);
    total += share;
    store(row + j, share);
  }
  if (rest) {
    V share = LANE < rest ? power(last * factor - top) : all(0.f);
    total += share;
    store(row + whole, share);
  }
  return sum(total);
}

// Queries, keys and values of one head, each [length, dim], to [length, dim] in rows of `stride`.
// Not inlined: inside the loop over layers g++ 12 made it a third slower.
__attribute__((noinline)) inline void attention(const float* q, const float* k, const float* v,
                                                int64_t length, int64_t dim, float* out,
                                                int64_t stride, Room& room) {
  int64_t padded = (length + N - 1) / N * N;
  room.keys.resize(padded * dim);
  room.values.resize(length * dim);
  room.scores.resize(R * padded + W);  // a row without a rest is read behind its end
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
    for (int64_t j = 0; j < padded; j += N)
      tile<rows.value>(q + row * dim, dim, keys + j * dim, dim, zeros, scores + j, padded, Same());
    float sums[rows.value];
    for (int r = 0; r < rows.value; r++) sums[r] = softmax(scores + r * padded, length, scale);
    float* to = out + row * stride;
    for (int64_t c = 0; c < dim; c += N)
      tile<rows.value>(scores, padded, values + c * length, length, zeros, to + c, stride, Same());
    for (int r = 0; r < rows.value; r++)
      for (float* c = to + r * stride; c < to + r * stride + dim; c += W)
        store(c, load(c) * (1 / sums[r]));
  });
}
