// The BERT family's encoder on a CPU: whole sequences through all layers, in fp32 or with products
// in whole numbers. One call computes on one core; what it computes depends on no other sequence.
#include "attention.h"

struct Norm {
  const float *weight, *bias;  // [hidden]
};

struct Layer {
  Linear qkv, attention_out, up, down;
  Norm attention_norm, norm;
};

struct Model {
  const Layer* layers;
  int64_t hidden, wide, heads;
  float eps;
  float floor;  // what is added to GELU's results before they are rounded
  int32_t int8;
};

namespace {

constexpr int64_t BLOCK = 144;  // tokens whose values stay in the second cache
constexpr int64_t ZERO = 128;  // the byte that stands for 0

struct Workspace {
  std::vector<float> qkv, mixed, y, wide, scale;
  std::vector<uint8_t> bytes;
  Room room;
};

// (x + y) normalised into x.
void norm(float* x, const float* y, int64_t width, const Norm& to, float eps) {
  V total = all(0.f);
  for (int64_t k = 0; k < width; k += W) {
    V v = load(x + k) + load(y + k);
    store(x + k, v);
    total += v;
  }
  V mean = all(sum(total) / width), squares = all(0.f);
  for (int64_t k = 0; k < width; k += W) {
    V v = load(x + k) - mean;
    squares += v * v;
  }
  V part = all(1 / __builtin_sqrtf(sum(squares) / width + eps));
  for (int64_t k = 0; k < width; k += W)
    store(x + k, (load(x + k) - mean) * part * load(to.weight + k) + load(to.bias + k));
}

// A token times `reader`, rounded to 127 steps to either side of ZERO; returns a step.
float rounded(const float* x, const float* reader, int64_t width, uint8_t* to) {
  V most = all(1e-12f);
  for (int64_t k = 0; k < width; k += W) most = greater(most, size(load(x + k) * load(reader + k)));
  float top = largest(most);
  V steps = all(127 / top);
  for (int64_t k = 0; k < width; k += W)
    store(to + k, load(x + k) * load(reader + k) * steps + (ZERO + 0.5f));
  return top / 127;
}

// A token through GELU, lifted above zero, rounded to 255 steps; returns a step.
float widened(const float* x, int64_t width, float floor, uint8_t* to) {
  V most = all(0.f);
  for (int64_t k = 0; k < width; k += W) most = greater(most, load(x + k));
  // GELU is largest where its input is, or not above zero
  float top = gelu(all(largest(most)))[0] + floor;
  V steps = all(255 / top);
  for (int64_t k = 0; k < width; k += W)
    store(to + k, (gelu(load(x + k)) + floor) * steps + 0.5f);
  return top / 255;
}

// Tokens through a linear layer, rounded first if its products are in whole numbers.
void linear(const Model& model, const float* x, int64_t count, const Linear& to, Place out,
            Workspace& space) {
  if (!model.int8) return product(x, count, to, out);
  Rows rows{space.bytes.data(), space.scale.data()};
  for (int64_t t = 0; t < count; t++)
    rows.scale[t] = rounded(x + t * to.inputs, to.reader, to.inputs, rows.values + t * to.inputs);
  product(rows, count, to, out);
}

void feed_forward(const Model& model, const float* x, int64_t count, const Layer& layer, Place out,
                  Workspace& space) {
  float* values = space.wide.data();
  Place wide{values, model.wide, count, 0};
  if (!model.int8) {
    product(x, count, layer.up, wide, Gelu());
    return product(values, count, layer.down, out);
  }
  linear(model, x, count, layer.up, wide, space);
  Rows rows{space.bytes.data(), space.scale.data()};
  for (int64_t t = 0; t < count; t++)
    rows.scale[t] = widened(values + t * model.wide, model.wide, model.floor,
                            rows.values + t * model.wide);
  product(rows, count, layer.down, out);
}

}  // namespace

extern "C" {

int64_t columns() { return N; }

// One linear layer on tokens in bytes, [count, inputs] to [count, outputs].
void product_int8(uint8_t* values, float* scale, int64_t count, const Linear* to, float* out) {
  product({values, scale}, count, *to, {out, to->outputs, count, 0});
}

// Sequences of `lengths` tokens, end to end, from hidden state 0 in x to hidden state `last`, which
// takes its place; out[n], where it is not null, gets hidden state n.
void encode(const Model* given, float* x, const int64_t* lengths, int64_t sequences, int64_t last,
            float* const* out) {
  static thread_local Workspace space;
  const Model& model = *given;
  int64_t hidden = model.hidden, dim = hidden / model.heads, total = 0;
  for (int64_t s = 0; s < sequences; s++) total += lengths[s];
  space.qkv.resize(total * 3 * hidden);
  space.mixed.resize(total * hidden);
  int64_t blocks = std::max<int64_t>(1, (total + BLOCK - 1) / BLOCK);
  int64_t block = (total + blocks * R - 1) / (blocks * R) * R;  // alike, in whole tiles
  space.y.resize(block * hidden);
  space.wide.resize(block * model.wide);
  space.scale.resize(block);
  space.bytes.resize(block * std::max(model.wide, hidden));
  float *qkv = space.qkv.data(), *mixed = space.mixed.data(), *y = space.y.data();
  for (int64_t n = 0;; n++) {
    if (out[n]) std::memcpy(out[n], x, sizeof(float) * total * hidden);
    if (n == last) return;
    const Layer& layer = model.layers[n];
    for (int64_t t = 0; t < total; t += block)
      linear(model, x + t * hidden, std::min(block, total - t), layer.qkv, {qkv, dim, total, t},
             space);
    for (int64_t head = 0; head < model.heads; head++)
      for (int64_t s = 0, t = 0; s < sequences; t += lengths[s++]) {
        const float* q = qkv + (head * total + t) * dim;
        attention(q, q + total * hidden, q + 2 * total * hidden, lengths[s], dim,
                  mixed + t * hidden + head * dim, hidden, space.room);
      }
    for (int64_t t = 0; t < total; t += block) {
      int64_t count = std::min(block, total - t);
      float* part = x + t * hidden;
      linear(model, mixed + t * hidden, count, layer.attention_out, {y, hidden, count, 0}, space);
      for (int64_t r = 0; r < count; r++)
        norm(part + r * hidden, y + r * hidden, hidden, layer.attention_norm, model.eps);
      feed_forward(model, part, count, layer, {y, hidden, count, 0}, space);
      for (int64_t r = 0; r < count; r++)
        norm(part + r * hidden, y + r * hidden, hidden, layer.norm, model.eps);
    }
  }
}
}
