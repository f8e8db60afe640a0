// The encoder of the BERT and ModernBERT families on a CPU. Runs whole sequences through all
// layers, in fp32 or with products in int8. One call runs on one core. A sequence's result does not
// depend on other sequences.
#include "attention_int8.h"

struct Norm {
  const float *weight, *bias;  // [hidden]
};

struct Layer {
  Linear qkv, attention_out, up, down;
  Norm attention_norm, norm;  // after the residual adds
  const float* rope;          // [positions, hidden / heads], see attention.h; null for none
  int64_t window;             // tokens that a token attends to on either side
};

struct Model {
  const Layer* layers;
  int64_t count, hidden, wide, heads;
  float eps;
  float floor;  // added to GELU's results before they are quantized
  int32_t int8;
  int32_t modern;       // ModernBERT: pre-norm (x is the residual stream) and a gated activation
  int32_t activation;   // of the feed-forward layers, see Activation; in int8 always GELU
  float linear, cubic;  // LOGISTIC: x * sigmoid(linear * x + cubic * x^3)
  int64_t int8_length;  // fewest tokens of a sequence whose attention has products in int8
};

enum Activation { GELU, RELU, LOGISTIC };

namespace {

// Tokens whose values stay in the L2 cache. With AMX, which is fast enough to wait for weights, all
// tokens are multiplied at once, and only the feed-forward layer's values in fp32 that become bytes
// are cut into blocks.
#if defined(HAS_AMX)
constexpr int64_t BLOCK = 288, WIDE_BLOCK = AMX_ROWS, ROUND = AMX_ROWS;
#else
constexpr int64_t BLOCK = 144, WIDE_BLOCK = BLOCK, ROUND = TILE_ROWS;
#endif

constexpr int64_t PREFETCHED = 4;  // tokens

struct Workspace {
  Buffer<float> normed, qkv, mixed, y, wide, scale, wide_scale;
  Buffer<uint8_t> bytes, wide_bytes;
  AttentionBuffers attention;
  Int8AttentionBuffers attention_int8;
};

// Stores sum(k), for k = 0, LANES, ..., in x, and the LayerNorm of x in `to`, which may be x.
template <class Sum>
void norm(float* x, float* to, int64_t width, const Norm& by, float eps, Sum sum) {
  F32 total = broadcast(0.f);
  for (int64_t k = 0; k < width; k += LANES) {
    F32 v = sum(k);
    store(x + k, v);
    total += v;
  }
  F32 mean = broadcast(reduce_sum(total) / width), squares = broadcast(0.f);
  for (int64_t k = 0; k < width; k += LANES) {
    F32 v = load(x + k) - mean;
    squares += v * v;
  }
  F32 part = broadcast(1 / __builtin_sqrtf(reduce_sum(squares) / width + eps));
  for (int64_t k = 0; k < width; k += LANES)
    store(to + k, (load(x + k) - mean) * part * load(by.weight + k) + load(by.bias + k));
}

void prefetch(const float* row, int64_t width) {
  for (int64_t k = 0; k < width; k += 16) __builtin_prefetch(row + k);  // a cache line each
}

// Quantizes a token times `input_scale` to 127 steps on either side of ZERO; returns the step size.
float quantize(const float* x, const float* input_scale, int64_t width, uint8_t* to) {
  auto size = [&](int64_t k) { return absolute(load(x + k) * load(input_scale + k)); };
  float top = largest(width, 1e-12f, size);
  F32 steps = broadcast(127 / top);
  for (int64_t k = 0; k < width; k += LANES)
    store(to + k, load(x + k) * load(input_scale + k) * steps + (ZERO + 0.5f));
  return top / 127;
}

// Applies GELU to a token, shifts it above zero, quantizes it to 255 steps; returns the step size.
float quantize_gelu(const float* x, int64_t width, float floor, uint8_t* to) {
  float most = largest(width, 0, [&](int64_t k) { return load(x + k); });
  // the largest positive result of GELU is that of the largest input
  float top = coarse_gelu(broadcast(most))[0] + floor;
  F32 steps = broadcast(255 / top);
  for (int64_t k = 0; k < width; k += LANES)
    store(to + k, (coarse_gelu(load(x + k)) + floor) * steps + 0.5f);
  return top / 255;
}

// The activation of the first half of each row [count, 2 * width] times the second half.
template <class Activated>
void gate(float* x, int64_t count, int64_t width, Activated activated) {
  for (int64_t t = 0; t < count; t++)
    for (int64_t k = 0; k < width; k += LANES) {
      const float* from = x + 2 * t * width + k;
      store(x + t * width + k, activated(load(from)) * load(from + width));
    }
}

// Runs a linear layer on tokens, which are quantized first if the layer is in int8.
void linear(const Model& model, const float* x, int64_t count, const Linear& to, OutputView out,
            Workspace& space) {
  if (!model.int8) return product(x, count, to, out);
  Rows rows{space.bytes.data(), space.scale.data()};
  for (int64_t t = 0; t < count; t++)
    rows.scale[t] =
        quantize(x + t * to.inputs, to.input_scale, to.inputs, rows.values + t * to.inputs);
  product(rows, count, to, out);
}

// A feed-forward layer's first product and activation, in fp32.
template <class Activated>
void widen(const Model& model, const float* x, int64_t count, const Linear& up, OutputView wide,
           Activated activated) {
  if (!model.modern) return product(x, count, up, wide, activated);
  product(x, count, up, wide);
  gate(wide.values, count, model.wide, activated);
}

void feed_forward(const Model& model, const float* x, int64_t count, const Layer& layer,
                  OutputView out, Workspace& space) {
  float* values = space.wide.data();
  if (!model.int8) {
    OutputView wide{values, layer.up.outputs, count, 0};
    switch (model.activation) {
      case GELU:
        widen(model, x, count, layer.up, wide, Gelu());
        break;
      case RELU:
        widen(model, x, count, layer.up, wide, Relu());
        break;
      default:
        widen(model, x, count, layer.up, wide, Logistic{model.linear, model.cubic});
    }
    return product(values, count, layer.down, out);
  }
  int64_t width = model.wide, outputs = layer.up.outputs;
  Rows rows{space.wide_bytes.data(), space.wide_scale.data()};
  for (int64_t from = 0; from < count; from += WIDE_BLOCK) {
    int64_t some = std::min(WIDE_BLOCK, count - from);
    linear(model, x + from * model.hidden, some, layer.up, {values, outputs, some, 0}, space);
    if (model.modern) gate(values, some, width, CoarseGelu());
    for (int64_t r = 0, t = from; r < some; r++, t++) {
      const float* row = values + r * width;
      uint8_t* to = rows.values + t * width;
      rows.scale[t] = model.modern ? quantize(row, layer.down.input_scale, width, to)
                                   : quantize_gelu(row, width, model.floor, to);
    }
  }
  product(rows, count, layer.down, out);
}

}  // namespace

extern "C" {

int64_t columns() { return TILE_COLS; }

// Runs one linear layer on quantized tokens: [count, inputs] to [count, outputs].
void product_int8(uint8_t* values, float* scale, int64_t count, const Linear* to, float* out) {
  product({values, scale}, count, *to, {out, to->outputs, count, 0});
}

// Writes the LayerNorm of each token's sum of a row of `words`, of `types` and of `positions`; the
// latter two may be null.
void embed(int64_t tokens, int64_t width, const int64_t* word_ids, const int64_t* position_ids,
           const int64_t* type_ids, const float* words, const float* positions, const float* types,
           const Norm* by, float eps, float* out) {
  for (int64_t t = 0; t < tokens; t++, out += width) {
    // rows of a large table come from memory, which takes as long as a few tokens
    if (t + PREFETCHED < tokens) prefetch(words + word_ids[t + PREFETCHED] * width, width);
    const float* word = words + word_ids[t] * width;
    const float* type = types ? types + type_ids[t] * width : nullptr;
    const float* position = positions ? positions + position_ids[t] * width : nullptr;
    norm(out, out, width, *by, eps, [&](int64_t k) {
      F32 v = load(word + k);
      if (type) v += load(type + k);
      if (position) v += load(position + k);
      return v;
    });
  }
}

// Runs packed sequences of `lengths` tokens from hidden state 0, in x, to hidden state `last`,
// which replaces it in x. Hidden state n is also written to out[n] unless that is null.
void encode(const Model* given, float* x, const int64_t* lengths, int64_t sequences, int64_t last,
            float* const* out) {
  static thread_local Workspace space;
  const Model& model = *given;
  int64_t hidden = model.hidden, dim = hidden / model.heads, total = 0;
  for (int64_t s = 0; s < sequences; s++) total += lengths[s];
  space.qkv.resize(total * 3 * hidden);
  space.mixed.resize(total * hidden);
  int64_t blocks = std::max<int64_t>(1, (total + BLOCK - 1) / BLOCK);
  int64_t block = (total + blocks * ROUND - 1) / (blocks * ROUND) * ROUND;  // equal, in whole tiles
  space.y.resize(block * hidden);
  space.wide.resize((model.int8 ? WIDE_BLOCK : block) * model.wide * (model.modern ? 2 : 1));
  if (model.int8) {
    space.scale.resize(block);
    space.bytes.resize(block * hidden);
    space.wide_scale.resize(block);
    space.wide_bytes.resize(block * model.wide);
  }
  float *qkv = space.qkv.data(), *mixed = space.mixed.data(), *y = space.y.data();
  float* normed = x;  // input of matrix products
  if (model.modern) {
    space.normed.assign(x, x + total * hidden);
    normed = space.normed.data();
  }
  for (int64_t n = 0;; n++) {
    const float* state = n == model.count ? normed : x;
    if (out[n]) std::memcpy(out[n], state, sizeof(float) * total * hidden);
    if (n == last) {
      if (state != x) std::memcpy(x, state, sizeof(float) * total * hidden);
      return;
    }
    const Layer& layer = model.layers[n];
    for (int64_t t = 0; t < total; t += block)
      linear(model, normed + t * hidden, std::min(block, total - t), layer.qkv,
             {qkv, dim, total, t}, space);
    for (int64_t head = 0; head < model.heads; head++)
      for (int64_t s = 0, t = 0; s < sequences; t += lengths[s++]) {
        float *q = qkv + (head * total + t) * dim, *k = q + total * hidden;
        if (layer.rope) {
          apply_rope(q, layer.rope, lengths[s], dim);
          apply_rope(k, layer.rope, lengths[s], dim);
        }
        auto attend = [&](auto form, auto& buffers) {
          form(q, k, k + total * hidden, lengths[s], dim, layer.window,
               mixed + t * hidden + head * dim, hidden, buffers);
        };
        if (model.int8 && lengths[s] >= model.int8_length)
          attend(attention_int8, space.attention_int8);
        else attend(attention, space.attention);
      }
    for (int64_t t = 0; t < total; t += block) {
      int64_t count = std::min(block, total - t);
      float *part = x + t * hidden, *read = normed + t * hidden;
      auto add = [&](const Norm& by) {
        for (int64_t r = 0; r < count * hidden; r += hidden)
          norm(part + r, read + r, hidden, by, model.eps,
               [&](int64_t k) { return load(part + r + k) + load(y + r + k); });
      };
      linear(model, mixed + t * hidden, count, layer.attention_out, {y, hidden, count, 0}, space);
      add(layer.attention_norm);
      feed_forward(model, read, count, layer, {y, hidden, count, 0}, space);
      add(layer.norm);
    }
  }
}
}
