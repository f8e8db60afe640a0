// Linear layers, their inputs in int8, and their outputs.
#pragma once

#include <cstdint>

// A linear layer. Weights in fp32 are [outputs / TILE_COLS, inputs, TILE_COLS], in int8 [outputs /
// TILE_COLS, inputs / 4, TILE_COLS, 4].
struct Linear {
  const void* weight;
  const float* bias;                   // [outputs]
  const float* scale;                  // [outputs], int8 only: step size of each output's weights
  const float* zero_point_correction;  // [outputs], int8 only: the zero point's share of a product
  const float* input_scale;  // [inputs], int8 only: multiplies inputs before they are quantized
  int64_t inputs, outputs;
};

// Tokens quantized to unsigned bytes, with one step size per token.
struct Rows {
  uint8_t* values;
  float* scale;
};

// The output of a product, [outputs / group, tokens, group], from row `token` on.
struct OutputView {
  float* values;
  int64_t group, tokens, token;

  float* at(int64_t row, int64_t column) const {
    return values + (column / group * tokens + token + row) * group + column % group;
  }
};
