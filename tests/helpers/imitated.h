// Instructions that the machine at hand may lack, in plain C++, so that the code that uses them is
// tested on it all the same: included first, with the instruction sets to imitate as macros.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

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

}  // namespace imitated

#if defined(IMITATE_AVX512BW)
#define __AVX512BW__ 1
#define _mm512_maddubs_epi16 imitated::maddubs
#define _mm512_madd_epi16 imitated::madd
#define _mm512_set1_epi16 imitated::set1
#define _mm512_cvttps_epi32 imitated::cvttps
#define _mm512_cvtepi32_epi8 imitated::cvtepi32
#endif
#if defined(IMITATE_AVX512VNNI)
#define __AVX512VNNI__ 1
#define _mm512_dpbusd_epi32 imitated::dpbusd<__m512i>
#endif
#if defined(IMITATE_AVXVNNI)
#define __AVXVNNI__ 1
#define _mm256_dpbusd_avx_epi32 imitated::dpbusd<__m256i>
#endif
