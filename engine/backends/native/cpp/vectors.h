// Vectors of a processor's width, and the functions of them that encoders need.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#if defined(__AVX512BW__)
constexpr int W = 16;  // fp32 lanes
constexpr int R = 12;  // rows of a tile: as many as leave registers for its operands
#else
constexpr int W = 8;
constexpr int R = 6;
#endif
constexpr int N = 2 * W;  // columns of a tile

typedef float V __attribute__((vector_size(4 * W)));
typedef int32_t I __attribute__((vector_size(4 * W)));

inline V load(const float* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline I load(const int8_t* from) {
  I v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline void store(float* to, V v) { std::memcpy(to, &v, sizeof v); }

inline V all(float x) { return x - V{}; }
inline I all(int32_t x) { return x - I{}; }
inline V greater(V a, V b) { return a > b ? a : b; }
inline V size(V x) { return (V)((I)x & 0x7fffffff); }

#if defined(__AVX512BW__)
const I LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
const I LANE = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

inline float sum(V x) {
#pragma GCC unroll 4
  for (int apart = W / 2; apart; apart /= 2) x += __builtin_shuffle(x, LANE ^ apart);
  return x[0];
}

inline float largest(V x) {
#pragma GCC unroll 4
  for (int apart = W / 2; apart; apart /= 2) x = greater(x, __builtin_shuffle(x, LANE ^ apart));
  return x[0];
}

// Whole parts of numbers from 0 to 255.
inline void store(uint8_t* to, V v) {
#if defined(__AVX512BW__)
  __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32((__m512)v));
#else
  __m256i whole = _mm256_cvttps_epi32((__m256)v);
  __m128i half = _mm256_castsi256_si128(whole), other = _mm256_extracti128_si256(whole, 1);
  __m128i pairs = _mm_packus_epi32(half, other), bytes = _mm_packus_epi16(pairs, pairs);
#endif
  std::memcpy(to, &bytes, W);
}

// Adds to every sum the products of four unsigned bytes with four signed ones. Without VNNI two
// neighbouring products are added in 16 bits: see rounding.rounded_in_pairs.
inline I dot(I sum, I bytes, I weights) {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
  return (I)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)bytes, (__m512i)weights);
#elif defined(__AVX512BW__)
  __m512i pairs = _mm512_maddubs_epi16((__m512i)bytes, (__m512i)weights);
  return sum + (I)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVXVNNI__)
  return (I)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)bytes, (__m256i)weights);
#else
  __m256i pairs = _mm256_maddubs_epi16((__m256i)bytes, (__m256i)weights);
  return sum + (I)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
}

constexpr float LOG2E = 1.44269504f;

// Two to the power of x, to 2e-7 of its size, for x up to 127; below -126 as of -126.
inline V power(V x) {
  x = greater(x, all(-126.f));
  V shifted = x + 12582912.f;  // 1.5 x 2^23: rounds to a whole number, in the lowest bits
  V r = x - (shifted - 12582912.f);
  V p = r * 0.00132647264f + 0.009671512699f;  // fitted from -1/2 to 1/2, off by at most 9.2e-8
  p = p * r + 0.05550733746f;
  p = p * r + 0.2402224208f;
  p = p * r + 0.6931469776f;
  p = p * r + 1;
  return (V)((I)p + ((I)shifted << 23));
}

// GELU; the error function as in Abramowitz and Stegun 7.1.26, off by at most 1.5e-7.
inline V gelu(V x) {
  V most = size(x), z = most * 0.70710678f;
  V t = 1 / (z * 0.3275911f + 1);
  V p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  V tail = p * t * power(z * z * -LOG2E) * 0.5f;  // of the normal distribution, beyond size(x)
  return greater(x, all(0.f)) - most * tail;
}
