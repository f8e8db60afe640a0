// SIMD vectors of the processor's width, and the functions on them that encoders need.
#pragma once

#if defined(__aarch64__)
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__AVX512BW__)
constexpr int LANES = 16;      // fp32 lanes
constexpr int TILE_ROWS = 12;  // rows of a tile: as many as the registers allow
#elif defined(__aarch64__)
constexpr int LANES = 4;
constexpr int TILE_ROWS = 10;  // with more, g++ 12 spills sums
#else
constexpr int LANES = 8;
constexpr int TILE_ROWS = 6;
#endif
constexpr int TILE_COLS = 2 * LANES;  // columns of a tile

typedef float F32 __attribute__((vector_size(4 * LANES)));
typedef int32_t I32 __attribute__((vector_size(4 * LANES)));
typedef int16_t I16 __attribute__((vector_size(4 * LANES)));

// Allocates whole cache lines: a vector or tile row that straddles two lines takes twice as long.
template <class T>
struct CacheLines {
  typedef T value_type;
  static constexpr std::align_val_t SIZE{64};
  CacheLines() = default;
  template <class Other>
  CacheLines(const CacheLines<Other>&) {}
  T* allocate(size_t count) { return (T*)::operator new(count * sizeof(T), SIZE); }
  void deallocate(T* memory, size_t) { ::operator delete(memory, SIZE); }
  friend bool operator==(CacheLines, CacheLines) { return true; }
  friend bool operator!=(CacheLines, CacheLines) { return false; }
};

// Scratch memory.
template <class T>
using Buffer = std::vector<T, CacheLines<T>>;

inline F32 load(const float* from) {
  F32 v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline I32 load(const int8_t* from) {
  I32 v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline I32 load(const int32_t* from) { return load((const int8_t*)from); }

inline void store(float* to, F32 v) { std::memcpy(to, &v, sizeof v); }

inline F32 broadcast(float x) { return x - F32{}; }
inline I32 broadcast(int32_t x) { return x - I32{}; }

// a > b ? a : b in every lane. g++ 12 compiles that to a comparison and a blend, four operations on
// some processors instead of one.
inline F32 maximum(F32 a, F32 b) {
#if defined(__AVX512BW__)
  return (F32)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__aarch64__)
  return a > b ? a : b;
#else
  return (F32)_mm256_max_ps((__m256)a, (__m256)b);
#endif
}

// a < b ? a : b in every lane.
inline F32 minimum(F32 a, F32 b) {
#if defined(__AVX512BW__)
  return (F32)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__aarch64__)
  return a < b ? a : b;
#else
  return (F32)_mm256_min_ps((__m256)a, (__m256)b);
#endif
}

inline F32 absolute(F32 x) { return (F32)((I32)x & 0x7fffffff); }

#if defined(__AVX512BW__)
const I32 LANE_INDEX = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif defined(__aarch64__)
const I32 LANE_INDEX = {0, 1, 2, 3};
#else
const I32 LANE_INDEX = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

inline float reduce_sum(F32 x) {
#pragma GCC unroll 4
  for (int apart = LANES / 2; apart; apart /= 2) x += __builtin_shuffle(x, LANE_INDEX ^ apart);
  return x[0];
}

inline float reduce_max(F32 x) {
#pragma GCC unroll 4
  for (int apart = LANES / 2; apart; apart /= 2)
    x = maximum(x, __builtin_shuffle(x, LANE_INDEX ^ apart));
  return x[0];
}

// The largest lane of `least` and of value(k) for k = 0, LANES, ... below `width`. Compared in four
// chains: in one, each comparison would wait for the one before.
template <class Value>
inline float largest(int64_t width, float least, Value value) {
  F32 most[4];
  for (F32& one : most) one = broadcast(least);
  int64_t k = 0;
  for (; k + 4 * LANES <= width; k += 4 * LANES)
    for (int i = 0; i < 4; i++) most[i] = maximum(most[i], value(k + i * LANES));
  for (; k < width; k += LANES) most[0] = maximum(most[0], value(k));
  return reduce_max(maximum(maximum(most[0], most[1]), maximum(most[2], most[3])));
}

// Combines the lanes of each of LANES vectors; lane i of the result is of rows[i].
template <class Combine>
inline F32 reduce_each(F32* rows, Combine combine) {
#pragma GCC unroll 4
  for (int apart = LANES / 2; apart; apart /= 2) {
    I32 upper = (LANE_INDEX & apart) != 0, other = LANE_INDEX ^ apart;
    I32 lows = upper ? other + LANES : LANE_INDEX, highs = upper ? LANE_INDEX + LANES : other;
#pragma GCC unroll 8
    for (int r = 0; r < apart; r++) {
      F32 a = rows[r], b = rows[r + apart];
      rows[r] = combine(__builtin_shuffle(a, b, lows), __builtin_shuffle(a, b, highs));
    }
  }
  return rows[0];
}

constexpr float ROUNDING = 12582912.f;  // 1.5 x 2^23: a sum has its integer in the lowest bits

// The lowest byte of every lane.
inline void store_bytes(void* to, I32 v) {
#if defined(__AVX512BW__)
  __m128i bytes = _mm512_cvtepi32_epi8((__m512i)v);
#elif defined(__aarch64__)
  uint16x4_t half = vmovn_u32((uint32x4_t)v);
  uint8x8_t bytes = vmovn_u16(vcombine_u16(half, half));
#else
  __m256i whole = (__m256i)(v & 255);
  __m128i half = _mm256_castsi256_si128(whole), other = _mm256_extracti128_si256(whole, 1);
  __m128i pairs = _mm_packus_epi32(half, other), bytes = _mm_packus_epi16(pairs, pairs);
#endif
  std::memcpy(to, &bytes, LANES);
}

// Integer parts of numbers from 0 to 255.
inline void store(uint8_t* to, F32 v) {
#if defined(__AVX512BW__)
  __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32((__m512)v));
#elif defined(__aarch64__)
  uint16x4_t half = vmovn_u32(vcvtq_u32_f32((float32x4_t)v));
  uint8x8_t bytes = vmovn_u16(vcombine_u16(half, half));
#else
  __m256i whole = _mm256_cvttps_epi32((__m256)v);
  __m128i half = _mm256_castsi256_si128(whole), other = _mm256_extracti128_si256(whole, 1);
  __m128i pairs = _mm_packus_epi32(half, other), bytes = _mm_packus_epi16(pairs, pairs);
#endif
  std::memcpy(to, &bytes, LANES);
}

// What `dot` wants flipped in four unsigned bytes. On aarch64 without i8mm it multiplies signed
// bytes: with their top bits flipped, unsigned ones are read as 128 less.
#if defined(__aarch64__) && !defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int32_t FLIPPED = int32_t(0x80808080);
#else
constexpr int32_t FLIPPED = 0;
#endif

// On x86-64 without VNNI, products of bytes are added in 16 bits before they are added in 32. Of
// the weights of linear layers, two times four fit, see smoothquant.quantize_in_fours; of
// attention's keys and values, four.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__aarch64__)
constexpr int STEPS = 1;
#else
constexpr int STEPS = 2;
#endif

#if defined(__AVX512BW__)
inline I16 products_in_pairs(I32 bytes, I32 weights) {
  return (I16)_mm512_maddubs_epi16((__m512i)bytes, (__m512i)weights);
}
inline I32 sums_of_pairs(I16 x) { return (I32)_mm512_madd_epi16((__m512i)x, _mm512_set1_epi16(1)); }
#elif !defined(__aarch64__)
inline I16 products_in_pairs(I32 bytes, I32 weights) {
  return (I16)_mm256_maddubs_epi16((__m256i)bytes, (__m256i)weights);
}
inline I32 sums_of_pairs(I16 x) { return (I32)_mm256_madd_epi16((__m256i)x, _mm256_set1_epi16(1)); }
#endif

// Adds the products of `steps` times four bytes, flipped by FLIPPED, and as many signed ones to
// every sum.
template <int steps>
inline I32 dot(I32 sum, const I32* bytes, const I32* weights) {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
  return (I32)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)*bytes, (__m512i)*weights);
#elif defined(__ARM_FEATURE_MATMUL_INT8)
  return (I32)vusdotq_s32((int32x4_t)sum, (uint8x16_t)*bytes, (int8x16_t)*weights);
#elif defined(__ARM_FEATURE_DOTPROD)
  return (I32)vdotq_s32((int32x4_t)sum, (int8x16_t)*bytes, (int8x16_t)*weights);
#elif defined(__aarch64__)
  int8x16_t a = (int8x16_t)*bytes, b = (int8x16_t)*weights;
  int16x8_t pairs = vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b));
  return (I32)vpadalq_s16((int32x4_t)sum, pairs);  // two products, at most 2 x 128 x 127, fit
#elif defined(__AVXVNNI__)
  return (I32)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)*bytes, (__m256i)*weights);
#else
  I16 sums{};
  for (int s = 0; s < steps; s++) sums += products_in_pairs(bytes[s], weights[s]);
  return sum + sums_of_pairs(sums);
#endif
}

constexpr float LOG2E = 1.44269504f;

// 2 to the power of x with a relative error of 2e-7, for x from -126 to 127; below -126, less than
// 2e-38.
inline F32 exp2(F32 x) {
#if defined(__AVX512BW__)
  F32 r = (F32)_mm512_reduce_ps((__m512)x, 0);  // beyond the nearest integer
#else
  x = maximum(x, broadcast(-126.f));
  F32 shifted = x + ROUNDING;
  F32 r = x - (shifted - ROUNDING);
#endif
  F32 p = r * 0.00132647264f + 0.009671512699f;  // fitted on -1/2 to 1/2, error at most 9.2e-8
  p = p * r + 0.05550733746f;
  p = p * r + 0.2402224208f;
  p = p * r + 0.6931469776f;
  p = p * r + 1;
#if defined(__AVX512BW__)
  return (F32)_mm512_scalef_ps((__m512)p, (__m512)(x - r));
#else
  return (F32)((I32)p + ((I32)shifted << 23));
#endif
}

// GELU, with the error function of Abramowitz and Stegun 7.1.26, whose error is at most 1.5e-7.
inline F32 gelu(F32 x) {
  F32 most = absolute(x), z = most * 0.70710678f;
  F32 t = 1 / (z * 0.3275911f + 1);
  F32 p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  F32 tail = p * t * exp2(z * z * -LOG2E) * 0.5f;  // normal distribution's tail beyond |x|
  return maximum(x, broadcast(0.f)) - most * tail;
}

// GELU with an error of at most 2e-4, for results that are rounded to bytes: the normal
// distribution's odd part is a polynomial, fitted from -4 to 4 with the right values at both ends.
inline F32 coarse_gelu(F32 x) {
  F32 z = minimum(maximum(x, broadcast(-4.f)), broadcast(4.f)), square = z * z;
  F32 p = square * 2.25885515e-8f - 1.5888477e-6f;
  p = p * square + 4.77643728e-5f;
  p = p * square - 8.12193149e-4f;
  p = p * square + 8.76372416e-3f;
  p = p * square - 6.4554498e-2f;
  p = p * square + 0.397870337f;
  return x * (p * z + 0.5f);
}

// x * sigmoid(z).
inline F32 logistic(F32 x, F32 z) { return x / (exp2(minimum(z * -LOG2E, broadcast(126.f))) + 1); }
