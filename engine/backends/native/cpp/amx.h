// Products of bytes in AMX's tile registers.
#pragma once

#include <algorithm>

#include "linear.h"
#include "vectors.h"

#if defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(__AVX512BW__)
#define HAS_AMX

constexpr int64_t AMX_ROWS = 32;   // rows that are multiplied together, in two registers
constexpr int64_t AMX_DEPTH = 64;  // bytes in a row of a register

// The compiler does not know which memory the tile instructions read and write: around them, all
// that is at `seen` and other addresses that left the compiler's sight is in memory.
inline void memory_barrier(const void* seen = nullptr) { asm volatile("" ::"r"(seen) : "memory"); }

// This thread's tile registers, in use while the value lives: eight of 16 rows of 64 bytes. The
// operating system has to grant them to the process first, see library.py.
struct TileRegisters {
  TileRegisters() {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } layout;
    memory_barrier(&layout);
    _tile_loadconfig(&layout);
  }
  ~TileRegisters() { _tile_release(); }
};

// Sums [AMX_ROWS, TILE_COLS] of the products of AMX_ROWS rows of bytes and an int8 panel. Rows that
// do not start at a cache line take more than twice as long.
inline void amx_products(const uint8_t* a, int64_t stride, const int8_t* panel, int64_t depth,
                         int32_t* sums) {
  memory_barrier();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < depth; k += AMX_DEPTH) {
    _tile_loadd(4, a + k, stride);
    _tile_loadd(6, panel + k * TILE_COLS, 4 * TILE_COLS);
    _tile_loadd(7, panel + k * TILE_COLS + 4 * LANES, 4 * TILE_COLS);
    _tile_dpbusd(0, 4, 6);
    _tile_loadd(5, a + 16 * stride + k, stride);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  _tile_stored(0, sums, 4 * TILE_COLS);
  _tile_stored(1, sums + LANES, 4 * TILE_COLS);
  _tile_stored(2, sums + 16 * TILE_COLS, 4 * TILE_COLS);
  _tile_stored(3, sums + 16 * TILE_COLS + LANES, 4 * TILE_COLS);
  memory_barrier();
}

// As product(Rows, ...), with the same bits, in tile registers. `to.inputs` is a multiple of
// AMX_DEPTH. Sums become results while the next tiles are multiplied.
inline void product_amx(Rows x, int64_t count, const Linear& to, OutputView out) {
  static thread_local Buffer<uint8_t> last_rows;  // the last AMX_ROWS, if there are fewer
  int64_t whole = count / AMX_ROWS * AMX_ROWS;
  last_rows.resize(AMX_ROWS * to.inputs);
  std::memcpy(last_rows.data(), x.values + whole * to.inputs, (count - whole) * to.inputs);
  alignas(64) int32_t sums[2][AMX_ROWS * TILE_COLS];
  TileRegisters registers;
  auto finish = [&](const int32_t* from, int64_t row, int64_t column) {
    F32 scale[2], correction[2], bias[2];
    for (int h = 0; h < 2; h++) {
      int64_t at = column + h * LANES;
      scale[h] = load(to.scale + at);
      correction[h] = load(to.zero_point_correction + at);
      bias[h] = load(to.bias + at);
    }
    float* results = out.at(row, column);
    int64_t rows = std::min(AMX_ROWS, count - row);
    for (int64_t r = 0; r < rows; r++, results += out.group)
      for (int h = 0; h < 2; h++) {
        F32 sum = __builtin_convertvector(load(from + r * TILE_COLS + h * LANES), F32);
        F32 y = sum * scale[h] - correction[h];
        store(results + h * LANES, y * x.scale[row + r] + bias[h]);
      }
  };
  const int8_t* panel = (const int8_t*)to.weight;
  int64_t last_row = 0, last_column = 0, turn = 0;
  for (int64_t column = 0; column < to.outputs; column += TILE_COLS, panel += to.inputs * TILE_COLS)
    for (int64_t row = 0; row < count; row += AMX_ROWS, turn ^= 1) {
      const uint8_t* a = row < whole ? x.values + row * to.inputs : last_rows.data();
      amx_products(a, to.inputs, panel, to.inputs, sums[turn]);
      if (row || column) finish(sums[turn ^ 1], last_row, last_column);
      last_row = row;
      last_column = column;
    }
  if (count) finish(sums[turn ^ 1], last_row, last_column);
}
#endif
