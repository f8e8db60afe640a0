// Matrix products of tokens with packed weights, in fp32 and in int8.
//
// Weights are stored in panels of TILE_COLS columns, row after row, so that a tile of TILE_ROWS
// tokens reads them sequentially from the L1 cache. Every result is summed in the same order,
// whatever other tokens there are.
#pragma once

#include <type_traits>

#include "amx.h"
#include "amx_fp32.h"
#include "vectors.h"

constexpr int64_t DEPTH = 6144 / TILE_COLS;  // rows of an fp32 panel that fit into the L1 cache

// Memory to prefetch into the L2 cache meanwhile: `pace` bytes a step.
struct Ahead {
  const char* from;
  int64_t pace;
};

// A tile of tokens [rows, depth] times a panel, plus `start`; `epilogue` is applied at the end.
template <int rows, class Epilogue>
inline void tile(const float* a, int64_t stride, const float* panel, int64_t depth,
                 const float* start, float* out, int64_t out_stride, Epilogue epilogue,
                 Ahead ahead = {}) {
  F32 sums[rows][2];
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
    for (int h = 0; h < 2; h++)
      sums[r][h] = load(start ? start + h * LANES : out + r * out_stride + h * LANES);
  for (int64_t k = 0; k < depth; k++) {
    __builtin_prefetch(ahead.from + k * ahead.pace, 0, 2);
    F32 left = load(panel + k * TILE_COLS), right = load(panel + k * TILE_COLS + LANES);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
      F32 x = broadcast(a[r * stride + k]);
      sums[r][0] += x * left;
      sums[r][1] += x * right;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
    for (int h = 0; h < 2; h++) store(out + r * out_stride + h * LANES, epilogue(sums[r][h]));
}

// A tile of quantized tokens [rows, depth] times an int8 panel, `steps` times four bytes at once;
// see `dot`. `epilogue` gets the sums of a row and of the panel's LANES columns from `column` on.
template <int rows, int steps, class Epilogue>
inline void tile(const uint8_t* a, int64_t stride, const int8_t* panel, int64_t depth, float* out,
                 int64_t out_stride, Epilogue epilogue, Ahead ahead = {}) {
  I32 sums[rows][2], zeros[2] = {};  // zeros: sums of a row of zeros, which flipping makes -128
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = I32{};
  for (int64_t k = 0; k < depth; k += 4 * steps) {
    __builtin_prefetch(ahead.from + k * ahead.pace, 0, 2);
    I32 left[steps], right[steps];
    for (int s = 0; s < steps; s++) {
      const int8_t* four = panel + (k + 4 * s) * TILE_COLS;
      left[s] = load(four);
      right[s] = load(four + 4 * LANES);
    }
    if constexpr (FLIPPED) {
      I32 zero = broadcast(FLIPPED);
      zeros[0] = dot<steps>(zeros[0], &zero, left);
      zeros[1] = dot<steps>(zeros[1], &zero, right);
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
      I32 x[steps];
      for (int s = 0; s < steps; s++) {
        int32_t four;
        std::memcpy(&four, a + r * stride + k + 4 * s, 4);
        x[s] = broadcast(four ^ FLIPPED);
      }
      sums[r][0] = dot<steps>(sums[r][0], x, left);
      sums[r][1] = dot<steps>(sums[r][1], x, right);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
    for (int column = 0; column < TILE_COLS; column += LANES) {
      int h = column / LANES;
      F32 sum = __builtin_convertvector(sums[r][h] - zeros[h], F32);
      store(out + r * out_stride + column, epilogue(sum, r, column));
    }
}

// Calls `work` with every tile's first row and, as a compile-time constant, its number of rows.
template <class Work>
inline void by_tiles(int64_t count, Work work) {
  int64_t row = 0;
  for (; row + TILE_ROWS <= count; row += TILE_ROWS)
    work(row, std::integral_constant<int, TILE_ROWS>());
  auto rest = [&](auto self, auto rows) -> void {
    if constexpr (rows.value > 0) {
      if (count - row == rows.value) work(row, rows);
      else self(self, std::integral_constant<int, rows.value - 1>());
    }
  };
  rest(rest, std::integral_constant<int, TILE_ROWS - 1>());
}

struct Identity {
  F32 operator()(F32 x) const { return x; }
};

struct Gelu {
  F32 operator()(F32 x) const { return gelu(x); }
};

struct CoarseGelu {
  F32 operator()(F32 x) const { return coarse_gelu(x); }
};

struct Relu {
  F32 operator()(F32 x) const { return maximum(x, broadcast(0.f)); }
};

struct Logistic {
  float linear, cubic;
  F32 operator()(F32 x) const { return logistic(x, x * (x * x * cubic + linear)); }
};

// Runs a linear layer and `epilogue` on tokens [count, inputs].
template <class Epilogue = Identity>
inline void product(const float* x, int64_t count, const Linear& to, OutputView out,
                    Epilogue epilogue = {}) {
#if defined(HAS_AMX)
  return product_amx(x, count, to, out, epilogue);
#endif
  const float* panel = (const float*)to.weight;
  for (int64_t column = 0; column < to.outputs; column += TILE_COLS)
    for (int64_t k = 0; k < to.inputs; k += DEPTH) {
      int64_t depth = std::min(DEPTH, to.inputs - k), size = depth * TILE_COLS;
      int64_t pace = 4 * TILE_COLS * TILE_ROWS / count + 1;
      auto work = [&](int64_t row, auto rows) {
        Ahead ahead{(const char*)(panel + size) + row / TILE_ROWS * depth * pace, pace};
        const float* a = x + row * to.inputs + k;
        const float* start = k ? nullptr : to.bias + column;
        float* c = out.at(row, column);
        if (k + depth == to.inputs)
          tile<rows.value>(a, to.inputs, panel, depth, start, c, out.group, epilogue, ahead);
        else tile<rows.value>(a, to.inputs, panel, depth, start, c, out.group, Identity(), ahead);
      };
      by_tiles(count, work);
      panel += size;
    }
}

inline void product(Rows x, int64_t count, const Linear& to, OutputView out) {
#if defined(HAS_AMX)
  if (to.inputs % AMX_DEPTH == 0) return product_amx(x, count, to, out);
#endif
  const int8_t* panel = (const int8_t*)to.weight;
  int64_t size = to.inputs * TILE_COLS;
  for (int64_t column = 0; column < to.outputs; column += TILE_COLS, panel += size) {
    int64_t pace = TILE_COLS * TILE_ROWS / count + 1;
    auto work = [&](int64_t row, auto rows) {
      Ahead ahead{(const char*)(panel + size) + row / TILE_ROWS * to.inputs * pace, pace};
      auto epilogue = [&](F32 sum, int r, int part) {
        int64_t at = column + part;
        F32 y = sum * load(to.scale + at) - load(to.zero_point_correction + at);
        return y * x.scale[row + r] + load(to.bias + at);
      };
      tile<rows.value, STEPS>(x.values + row * to.inputs, to.inputs, panel, to.inputs,
                              out.at(row, column), out.group, epilogue, ahead);
    };
    by_tiles(count, work);
  }
}
