// Products of bytes in AMX's tile registers.
#pragma once

#include "vectors.h"

#if defined(__AMX_INT8__) && defined(__AVX512BW__)
#define HAS_AMX

constexpr int64_t AMX_ROWS = 32;   // rows that are multiplied together, in two registers
constexpr int64_t AMX_DEPTH = 64;  // bytes in a row of a register

// This thread's tile registers, in use while the value lives: eight of 16 rows of 64 bytes. The
// operating system has to grant them to the process first, see library.py.
struct TileRegisters {
  TileRegisters() {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } layout;
    _tile_loadconfig(&layout);
  }
  ~TileRegisters() { _tile_release(); }
};

// The compiler does not know which memory the tile instructions read and write.
inline void memory_barrier() { asm volatile("" ::: "memory"); }

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
#endif
