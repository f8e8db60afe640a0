// Products of fp32 matrices in AMX's tile registers, which multiply bf16 and add in fp32.
//
// A number in fp32 is the sum of three parts in bf16. Of the nine products of two numbers' parts,
// the six largest are added, 32 inputs after 32 inputs. What is left out is less than fp32's
// rounding. Infinity becomes NaN: neither is a legal state.
#pragma once

#include "amx.h"

#if defined(HAS_AMX)
constexpr int PARTS = 3;
constexpr int64_t BF16_DEPTH = 32;  // numbers in a row of a register
constexpr int64_t SLICE = 384;  // inputs that are multiplied at once: parts stay in the L2 cache

// Takes the nearest bf16 off x and returns it as fp32. The last part has at most 8 bits: they are
// taken as they are, since rounding would turn some NaN into 0.
inline I32 take_part(F32& x, int part) {
  I32 rounded = (I32)x + (part + 1 < PARTS ? 0x8000 : 0);
  I32 taken = rounded & int32_t(0xffff0000);
  x -= (F32)taken;
  return taken;
}

// Writes the parts of rows [count, depth] of numbers, each part [rows, depth].
inline void split_rows(const float* x, int64_t stride, int64_t count, int64_t depth, int64_t rows,
                       uint16_t* to) {
  for (int64_t r = 0; r < count; r++)
    for (int64_t k = 0; k < depth; k += LANES) {
      F32 left = load(x + r * stride + k);
      for (int part = 0; part < PARTS; part++) {
        I32 upper = take_part(left, part);
        __m256i bf16 = _mm512_cvtepi32_epi16(_mm512_srli_epi32((__m512i)upper, 16));
        std::memcpy(to + (part * rows + r) * depth + k, &bf16, sizeof bf16);
      }
    }
}

// Writes the parts of a panel [depth, TILE_COLS], each [depth / 2, TILE_COLS, 2], step by step, so
// that it takes place while the tiles of another panel are multiplied.
struct PanelSplit {
  const float* panel;
  int64_t depth;
  uint16_t* to;
  int64_t done = 0;

  void advance(int64_t steps) {
    for (int64_t end = std::min(depth, done + steps); done < end; done++) {
      int64_t k = done / 2 * 2, column = done % 2 * LANES;
      const float* from = panel + k * TILE_COLS + column;
      F32 even = load(from), odd = load(from + TILE_COLS);
      for (int part = 0; part < PARTS; part++) {
        I32 lower = (I32)_mm512_srli_epi32((__m512i)take_part(even, part), 16);
        I32 pairs = lower | take_part(odd, part);
        std::memcpy(to + (part * depth + k) * TILE_COLS + 2 * column, &pairs, sizeof pairs);
      }
    }
  }
};

// Adds the products of AMX_ROWS rows and a panel, in parts, to `sums` [AMX_ROWS, TILE_COLS], or
// sets `sums` to them if `first`. Each of the rows' parts is `part_size` numbers after the last.
inline void amx_products(const uint16_t* a, int64_t part_size, const uint16_t* panel, int64_t depth,
                         float* sums, bool first, PanelSplit& next, int64_t steps) {
  constexpr int64_t stride = 4 * TILE_COLS;
  memory_barrier();
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, stride);
    _tile_loadd(1, sums + LANES, stride);
    _tile_loadd(2, sums + 16 * TILE_COLS, stride);
    _tile_loadd(3, sums + 16 * TILE_COLS + LANES, stride);
  }
  for (int64_t k = 0; k < depth; k += BF16_DEPTH) {
    auto load_rows = [&](int part) {
      const uint16_t* from = a + part * part_size + k;
      _tile_loadd(4, from, 2 * depth);
      _tile_loadd(5, from + 16 * depth, 2 * depth);
    };
    auto load_columns = [&](int part) {
      const uint16_t* from = panel + (part * depth + k) * TILE_COLS;
      _tile_loadd(6, from, stride);
      _tile_loadd(7, from + 2 * LANES, stride);
    };
    auto multiply = [] {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    };
    next.advance(steps);
    load_rows(2);
    load_columns(0);
    multiply();
    load_rows(1);
    multiply();
    load_columns(1);
    multiply();
    load_rows(0);
    multiply();
    load_columns(2);
    multiply();
    load_columns(0);
    multiply();
  }
  _tile_stored(0, sums, stride);
  _tile_stored(1, sums + LANES, stride);
  _tile_stored(2, sums + 16 * TILE_COLS, stride);
  _tile_stored(3, sums + 16 * TILE_COLS + LANES, stride);
  memory_barrier();
}

// As product(const float*, ...) in products.h.
template <class Epilogue>
inline void product_amx(const float* x, int64_t count, const Linear& to, OutputView out,
                        Epilogue epilogue) {
  constexpr int64_t BLOCK_SIZE = AMX_ROWS * TILE_COLS, PANEL_SIZE = PARTS * SLICE * TILE_COLS;
  static thread_local Buffer<uint16_t> row_parts, panel_parts;
  static thread_local Buffer<float> sums;
  int64_t blocks = (count + AMX_ROWS - 1) / AMX_ROWS, rows = blocks * AMX_ROWS;
  bool sliced = to.inputs > SLICE;  // all sums are kept from slice to slice; otherwise the last two
  row_parts.resize(PARTS * rows * SLICE);
  panel_parts.resize(2 * PANEL_SIZE);
  sums.resize((sliced ? to.outputs / TILE_COLS * blocks : 2) * BLOCK_SIZE);
  TileRegisters registers;
  auto finish = [&](const float* from, int64_t row, int64_t column) {
    F32 bias[2] = {load(to.bias + column), load(to.bias + column + LANES)};
    float* results = out.at(row, column);
    int64_t some = std::min(AMX_ROWS, count - row);
    for (int64_t r = 0; r < some; r++, results += out.group)
      for (int h = 0; h < 2; h++)
        store(results + h * LANES, epilogue(load(from + r * TILE_COLS + h * LANES) + bias[h]));
  };
  for (int64_t k = 0; k < to.inputs; k += SLICE) {
    int64_t depth = std::min(SLICE, to.inputs - k),
            steps = BF16_DEPTH / std::max<int64_t>(1, blocks) + 1;
    split_rows(x + k, to.inputs, count, depth, rows, row_parts.data());
    auto split = [&](int64_t column, int64_t turn) {
      const float* panel = (const float*)to.weight + column * to.inputs + k * TILE_COLS;
      int64_t there = column < to.outputs ? depth : 0;
      return PanelSplit{panel, there, panel_parts.data() + turn * PANEL_SIZE};
    };
    PanelSplit next = split(0, 0);
    int64_t turn = 0, block = 0, last_row = 0, last_column = 0;
    float* last = nullptr;
    auto finish_last = [&] {
      if (last && k + depth == to.inputs) finish(last, last_row, last_column);
    };
    for (int64_t column = 0; column < to.outputs; column += TILE_COLS, turn ^= 1) {
      next.advance(depth);
      next = split(column + TILE_COLS, turn ^ 1);
      for (int64_t row = 0; row < count; row += AMX_ROWS, block++) {
        float* sum = sums.data() + (sliced ? block : block % 2) * BLOCK_SIZE;
        amx_products(row_parts.data() + row * depth, rows * depth,
                     panel_parts.data() + turn * PANEL_SIZE, depth, sum, k == 0, next, steps);
        finish_last();
        last = sum;
        last_row = row;
        last_column = column;
      }
    }
    finish_last();
  }
}
#endif
