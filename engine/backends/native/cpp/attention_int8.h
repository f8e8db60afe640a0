// Attention of one head in one sequence, with products in int8. Scores, softmax and sums are fp32.
//
// Every query, key and value has a step size of its own. The values' step sizes are multiplied into
// the weights, which are then rounded to bytes with one step size a row, so that a row's largest
// share of the result has 255 steps.
#pragma once

#include "attention.h"

constexpr int64_t ZERO = 128;       // zero point: the byte that stands for 0
constexpr float QUERY_STEPS = 127;  // on either side of ZERO
constexpr float KEY_STEPS = 63;     // on either side of 0, of values too: see STEPS
constexpr float WEIGHT_STEPS = 255;

// Scratch memory; it grows to the longest sequence so far.
struct Int8AttentionBuffers {
  Buffer<float> query_scale, key_scale, key_correction, value_scale, scores;
  Buffer<uint8_t> queries, weights;
  Buffer<int8_t> keys, values;
};

// The largest absolute value of each of `count` vectors [count, width], at most LANES.
inline F32 largest_each(const float* x, int64_t width, int64_t count) {
  F32 most[LANES];
  for (int t = 0; t < LANES; t++) {
    most[t] = broadcast(1e-12f);
    for (int64_t c = 0; t < count && c < width; c += LANES)
      most[t] = maximum(most[t], absolute(load(x + t * width + c)));
  }
  return reduce_each(most, maximum);
}

// Quantizes up to LANES queries [count, dim]; writes their step sizes times `factor` to `scale`.
inline void quantize_queries(const float* q, int64_t dim, int64_t count, float factor, uint8_t* to,
                             float* scale) {
  F32 top = largest_each(q, dim, count), steps = QUERY_STEPS / top;
  store(scale, top * (factor / QUERY_STEPS));
  for (int64_t t = 0; t < count; t++)
    for (int64_t c = t * dim; c < (t + 1) * dim; c += LANES)
      store_bytes(to + c, (I32)(load(q + c) * steps[t] + (ROUNDING + ZERO)));
}

// Quantizes up to LANES keys into their columns of a panel [dim / 4, TILE_COLS, 4]; writes their
// step sizes and the zero point's share of their products.
inline void quantize_keys(const float* k, int64_t dim, int64_t count, int8_t* panel, float* scale,
                          float* correction) {
  F32 top = largest_each(k, dim, count), steps = KEY_STEPS / top, sums[LANES] = {};
  for (int64_t t = 0; t < count; t++)
    for (int64_t c = 0; c < dim; c += LANES) {
      int8_t bytes[LANES];
      F32 y = load(k + t * dim + c) * steps[t] + ROUNDING;
      sums[t] += y - ROUNDING;
      store_bytes(bytes, (I32)y);
      for (int64_t i = 0; i < LANES; i += 4)
        std::memcpy(panel + (c + i) * TILE_COLS + t * 4, bytes + i, 4);
    }
  top *= 1 / KEY_STEPS;
  store(scale, top);
  store(correction, reduce_each(sums, [](F32 a, F32 b) { return a + b; }) * top * float(ZERO));
}

// Quantizes up to LANES values into their rows of panels [dim / TILE_COLS, rows / 4, TILE_COLS, 4];
// writes their step sizes.
inline void quantize_values(const float* v, int64_t dim, int64_t count, int64_t rows, int8_t* panel,
                            float* scale) {
  F32 top = largest_each(v, dim, count), steps = KEY_STEPS / top;
  store(scale, top * (1 / KEY_STEPS));
  for (int64_t t = 0; t < count; t += 4)
    for (int64_t c = 0; c < dim; c += LANES) {
      I32 four = {};  // a byte of each of four values
      for (int64_t i = 0; i < std::min<int64_t>(4, count - t); i++) {
        I32 whole = (I32)(load(v + (t + i) * dim + c) * steps[t + i] + ROUNDING);
        four |= (whole & 255) << int32_t(8 * i);
      }
      int64_t column = c % TILE_COLS;
      std::memcpy(panel + (c - column) * rows + t * TILE_COLS + column * 4, &four, sizeof four);
    }
}

// As attention() in attention.h.
__attribute__((noinline)) inline void attention_int8(const float* q, const float* k, const float* v,
                                                     int64_t length, int64_t dim, int64_t window,
                                                     float* out, int64_t stride,
                                                     Int8AttentionBuffers& buffers) {
  int64_t padded = (length + TILE_COLS - 1) / TILE_COLS * TILE_COLS;
  auto fit = [](auto& vector, int64_t size) {
    vector.resize(size);
    return vector.data();
  };
  uint8_t *queries = fit(buffers.queries, length * dim),
          *weights = fit(buffers.weights, TILE_ROWS * padded);
  int8_t *keys = fit(buffers.keys, padded * dim), *values = fit(buffers.values, padded * dim);
  float *query_scale = fit(buffers.query_scale, padded),
        *key_scale = fit(buffers.key_scale, padded),
        *key_correction = fit(buffers.key_correction, padded),
        *value_scale = fit(buffers.value_scale, padded),
        *scores = fit(buffers.scores, TILE_ROWS * padded);
  float scale = 1 / __builtin_sqrtf(float(dim));
  for (int64_t j = 0; j < length; j += LANES) {
    int64_t count = std::min<int64_t>(LANES, length - j), at = j * dim, column = j % TILE_COLS;
    quantize_queries(q + at, dim, count, scale, queries + at, query_scale + j);
    quantize_keys(k + at, dim, count, keys + (j - column) * dim + column * 4, key_scale + j,
                  key_correction + j);
    quantize_values(v + at, dim, count, padded, values + j * TILE_COLS, value_scale + j);
  }
  by_tiles(length, [&](int64_t row, auto rows) {
    // Keys that are visible to a token of the tile, rounded down to the start of a panel.
    int64_t from = std::max<int64_t>(0, row - window) / TILE_COLS * TILE_COLS;
    int64_t to = std::min(length, row + rows.value + window);
    for (int64_t j = from; j < to; j += TILE_COLS)
      tile<rows.value, 1>(queries + row * dim, dim, keys + j * dim, dim, scores + j, padded,
                          [&](F32 sum, int, int column) {
                            int64_t key = j + column;
                            return sum * load(key_scale + key) - load(key_correction + key);
                          });
    float factor[rows.value];  // from a row's sums of bytes to results
    for (int64_t r = 0, t = row; r < rows.value; r++, t++) {
      float* score = scores + r * padded;
      F32 most = broadcast(1e-30f);
      auto keep = [&](int64_t j, F32 weight) {
        F32 share = weight * load(value_scale + j);
        most = maximum(most, share);
        store(score + j, share);
      };
      float sum = softmax(score, from, to, std::max<int64_t>(0, t - window),
                          std::min(length, t + window + 1), query_scale[t], keep);
      float top = reduce_max(most);
      F32 steps = broadcast(WEIGHT_STEPS / top);
      for (int64_t j = from; j < to; j += LANES)
        store(weights + r * padded + j, load(score + j) * steps + 0.5f);
      factor[r] = top / (WEIGHT_STEPS * sum);
    }
    for (int64_t c = 0; c < dim; c += TILE_COLS)
      tile<rows.value, 1>(weights + from, padded, values + c * padded + from * TILE_COLS,
                          (to - from + 3) / 4 * 4, out + row * stride + c, stride,
                          [&](F32 sum, int r, int) { return sum * factor[r]; });
  });
}
