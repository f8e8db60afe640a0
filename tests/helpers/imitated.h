// Instructions that the machine at hand may lack, in plain C++, so that the code that uses them is
// tested on it all the same: included first, with the instruction sets to imitate as macros.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

namespace imitated {

template <class To, class From>
inline To bits(From from) {
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Four unsigned bytes with four signed ones, added to every 32 bits; nothing is cut off.
template <class I>
inline I dpbusd(I sum, I bytes, I weights) {
  constexpr int lanes = sizeof(I) / 4;
  int32_t sums[lanes];
  uint8_t left[4 * lanes];
  int8_t right[4 * lanes];
  std::memcpy(sums, &sum, sizeof sum);
  std::memcpy(left, &bytes, sizeof bytes);
  std::memcpy(right, &weights, sizeof weights);
  for (int n = 0; n < 4 * lanes; n++) sums[n / 4] += int32_t(left[n]) * right[n];
  std::memcpy(&sum, sums, sizeof sum);
  return sum;
}

// Unsigned bytes times signed ones, neighbours added in 16 bits, what does not fit cut off.
inline __m512i maddubs(__m512i bytes, __m512i weights) {
  auto left = bits<std::array<uint8_t, 64>>(bytes);
  auto right = bits<std::array<int8_t, 64>>(weights);
  std::array<int16_t, 32> sums;
  for (int n = 0; n < 32; n++)
    sums[n] = std::clamp(left[2 * n] * right[2 * n] + left[2 * n + 1] * right[2 * n + 1], -32768,
                         32767);
  return bits<__m512i>(sums);
}

// Whole numbers of 16 bits, products of neighbours added in 32.
inline __m512i madd(__m512i a, __m512i b) {
  auto left = bits<std::array<int16_t, 32>>(a), right = bits<std::array<int16_t, 32>>(b);
  std::array<int32_t, 16> sums;
  for (int n = 0; n < 16; n++)
    sums[n] = left[2 * n] * right[2 * n] + left[2 * n + 1] * right[2 * n + 1];
  return bits<__m512i>(sums);
}

inline __m512i set1(short value) {
  std::array<int16_t, 32> all;
  all.fill(value);
  return bits<__m512i>(all);
}

inline __m512i cvttps(__m512 x) {
  auto from = bits<std::array<float, 16>>(x);
  std::array<int32_t, 16> to;
  for (int n = 0; n < 16; n++) to[n] = int32_t(from[n]);
  return bits<__m512i>(to);
}

inline __m128i cvtepi32(__m512i x) {
  auto from = bits<std::array<int32_t, 16>>(x);
  std::array<uint8_t, 16> to;
  for (int n = 0; n < 16; n++) to[n] = uint8_t(from[n]);
  return bits<__m128i>(to);
}

// The larger numbers; the second where neither is larger.
inline __m512 maximum(__m512 a, __m512 b) {
  auto left = bits<std::array<float, 16>>(a), right = bits<std::array<float, 16>>(b);
  for (int n = 0; n < 16; n++) left[n] = left[n] > right[n] ? left[n] : right[n];
  return bits<__m512>(left);
}

inline __m512 minimum(__m512 a, __m512 b) {
  auto left = bits<std::array<float, 16>>(a), right = bits<std::array<float, 16>>(b);
  for (int n = 0; n < 16; n++) left[n] = left[n] < right[n] ? left[n] : right[n];
  return bits<__m512>(left);
}

// Each number less the nearest integer.
inline __m512 reduce(__m512 x) {
  auto numbers = bits<std::array<float, 16>>(x);
  for (float& one : numbers) one = std::isinf(one) ? 0 : one - std::nearbyint(one);
  return bits<__m512>(numbers);
}

// Numbers times 2 to the power of whole numbers.
inline __m512 scalef(__m512 x, __m512 powers) {
  auto numbers = bits<std::array<float, 16>>(x), by = bits<std::array<float, 16>>(powers);
  for (int n = 0; n < 16; n++) numbers[n] *= std::exp2(by[n]);
  return bits<__m512>(numbers);
}

// Tile registers of 16 rows of 64 bytes; null where they are not in use.
struct Tile {
  alignas(64) uint8_t bytes[16][64];
};
inline thread_local std::unique_ptr<Tile[]> tiles;

// The rest is compiled without optimisation, which takes too long here.
#define FAST __attribute__((optimize("O2", "no-strict-aliasing")))

inline void load_tile(int to, const void* from, int64_t stride) {
  for (int r = 0; r < 16; r++)
    std::memcpy(tiles.get()[to].bytes[r], (const char*)from + r * stride, 64);
}

inline void store_tile(int from, void* to, int64_t stride) {
  for (int r = 0; r < 16; r++) std::memcpy((char*)to + r * stride, tiles.get()[from].bytes[r], 64);
}

// Adds the products of rows of unsigned bytes and columns of signed ones, four bytes a column.
FAST inline void multiply_tiles(int sums, int rows, int columns) {
  auto* to = (int32_t(*)[16])tiles.get()[sums].bytes;
  const auto& from = tiles.get()[rows].bytes;
  auto* by = (int8_t(*)[64])tiles.get()[columns].bytes;
  for (int r = 0; r < 16; r++)
    for (int c = 0; c < 16; c++)
      for (int k = 0; k < 64; k++) to[r][c] += from[r][k] * by[k / 4][4 * c + k % 4];
}

// Adds the products of bf16 in rows and in columns, in pairs: first the sum of all even ones and the
// sum of all odd ones, in fp32, then both to what there is.
FAST inline void multiply_bf16(int sums, int rows, int columns) {
  float from[16][32], by[16][32];
  for (int r = 0; r < 16; r++)
    for (int k = 0; k < 32; k++) {
      uint16_t halves[2];
      std::memcpy(&halves[0], &tiles.get()[rows].bytes[r][2 * k], 2);
      std::memcpy(&halves[1], &tiles.get()[columns].bytes[r][2 * k], 2);
      uint32_t wide[2] = {uint32_t(halves[0]) << 16, uint32_t(halves[1]) << 16};
      std::memcpy(&from[r][k], &wide[0], 4);
      std::memcpy(&by[r][k], &wide[1], 4);
    }
  auto* to = (float(*)[16])tiles.get()[sums].bytes;
  for (int r = 0; r < 16; r++)
    for (int c = 0; c < 16; c++) {
      float even = 0, odd = 0;
      for (int k = 0; k < 16; k++) {
        even += from[r][2 * k] * by[k][2 * c];
        odd += from[r][2 * k + 1] * by[k][2 * c + 1];
      }
      to[r][c] += even + odd;
    }
}

inline __m512i shift_right(__m512i x, int by) {
  auto numbers = bits<std::array<uint32_t, 16>>(x);
  for (uint32_t& one : numbers) one >>= by;
  return bits<__m512i>(numbers);
}

// The lower half of every 32 bits.
inline __m256i halves(__m512i x) {
  auto from = bits<std::array<uint32_t, 16>>(x);
  std::array<uint16_t, 16> to;
  for (int n = 0; n < 16; n++) to[n] = uint16_t(from[n]);
  return bits<__m256i>(to);
}

}  // namespace imitated

#if defined(IMITATE_AVX512BW)
#define __AVX512BW__ 1
#define _mm512_maddubs_epi16 imitated::maddubs
#define _mm512_madd_epi16 imitated::madd
#define _mm512_set1_epi16 imitated::set1
#define _mm512_max_ps imitated::maximum
#define _mm512_min_ps imitated::minimum
#define _mm512_cvttps_epi32 imitated::cvttps
#define _mm512_cvtepi32_epi8 imitated::cvtepi32
#undef _mm512_reduce_ps
#define _mm512_reduce_ps(x, rounding) imitated::reduce(x)
#define _mm512_scalef_ps imitated::scalef
#endif
#if defined(IMITATE_AVX512VNNI)
#define __AVX512VNNI__ 1
#define _mm512_dpbusd_epi32 imitated::dpbusd<__m512i>
#endif
#if defined(IMITATE_AVXVNNI)
#define __AVXVNNI__ 1
#define _mm256_dpbusd_avx_epi32 imitated::dpbusd<__m256i>
#endif
#if defined(IMITATE_AMX)
#define __AMX_INT8__ 1
#define __AMX_BF16__ 1
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_loadconfig(layout) ((void)(layout), imitated::tiles.reset(new imitated::Tile[8]))
#define _tile_release() imitated::tiles.reset()
#define _tile_zero(tile) ((void)(imitated::tiles.get()[tile] = {}))
#define _tile_loadd imitated::load_tile
#define _tile_stored imitated::store_tile
#define _tile_dpbusd imitated::multiply_tiles
#define _tile_dpbf16ps imitated::multiply_bf16
#define _mm512_srli_epi32 imitated::shift_right
#define _mm512_cvtepi32_epi16 imitated::halves
#endif
