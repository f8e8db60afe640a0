// The C++ encoder as a program, for a processor that this machine can only emulate. It reads a
// function's letter and arguments, writes its results, and starts again. See emulated.py.
#include <cstdio>
#include <cstdlib>

#include "encoder.cpp"

namespace {

template <class T>
std::vector<T> take(int64_t count) {
  std::vector<T> values(count);
  if (std::fread(values.data(), sizeof(T), count, stdin) != size_t(count)) std::abort();
  return values;
}

template <class T>
void give(const std::vector<T>& values) {
  std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

// Points to a copy of the caller's values, which come next in the input, unless it is null. The
// copy lives as long as the program.
template <class T>
void copy(const T*& pointer, int64_t count) {
  if (pointer) pointer = (new std::vector<T>(take<T>(count)))->data();
}

void copy(Linear& linear, bool int8) {
  auto weight = (const uint8_t*)linear.weight;
  copy(weight, linear.inputs * linear.outputs * (int8 ? 1 : sizeof(float)));
  linear.weight = weight;
  for (auto field : {&Linear::bias, &Linear::scale, &Linear::zero_point_correction})
    copy(linear.*field, linear.outputs);
  copy(linear.input_scale, linear.inputs);
}

void call_encode() {
  Model model = take<Model>(1)[0];
  std::vector<Layer> layers = take<Layer>(model.count);
  model.layers = layers.data();
  auto [sequences, last] = take<std::pair<int64_t, int64_t>>(1)[0];
  std::vector<int64_t> lengths = take<int64_t>(sequences);
  int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  for (Layer& layer : layers) {
    for (auto field : {&Layer::qkv, &Layer::attention_out, &Layer::up, &Layer::down})
      copy(layer.*field, model.int8);
    for (auto field : {&Layer::attention_norm, &Layer::norm}) {
      copy((layer.*field).weight, model.hidden);
      copy((layer.*field).bias, model.hidden);
    }
    copy(layer.rope, longest * model.hidden / model.heads);
  }
  int64_t size = 0;
  for (int64_t length : lengths) size += length * model.hidden;
  std::vector<float> x = take<float>(size);
  std::vector<std::vector<float>> states(last + 1, std::vector<float>(size));
  std::vector<float*> out;
  for (auto& state : states) out.push_back(state.data());
  encode(&model, x.data(), lengths.data(), sequences, last, out.data());
  give(x);
  for (auto& state : states) give(state);
}

void call_embed() {
  auto sizes = take<int64_t>(5);
  int64_t tokens = sizes[0], width = sizes[1];
  std::vector<int64_t> ids[3];
  for (auto& one : ids) one = take<int64_t>(tokens);
  std::vector<float> tables[3];
  for (int i = 0; i < 3; i++) tables[i] = take<float>(sizes[2 + i] * width);
  auto table = [&](int i) { return sizes[2 + i] ? tables[i].data() : nullptr; };
  std::vector<float> weight = take<float>(width), bias = take<float>(width), out(tokens * width);
  float eps = take<float>(1)[0];
  Norm norm{weight.data(), bias.data()};
  embed(tokens, width, ids[0].data(), ids[1].data(), ids[2].data(), table(0), table(1), table(2),
        &norm, eps, out.data());
  give(out);
}

void call_product_int8() {
  Linear linear = take<Linear>(1)[0];
  copy(linear, true);
  int64_t count = take<int64_t>(1)[0];
  std::vector<uint8_t> values = take<uint8_t>(count * linear.inputs);
  std::vector<float> scale = take<float>(count), out(count * linear.outputs);
  product_int8(values.data(), scale.data(), count, &linear, out.data());
  give(out);
}

}  // namespace

int main() {
  for (char function; std::fread(&function, 1, 1, stdin); std::fflush(stdout)) {
    if (function == 'c') give(std::vector<int64_t>{columns()});
    if (function == 'e') call_encode();
    if (function == 'b') call_embed();
    if (function == 'p') call_product_int8();
  }
}
