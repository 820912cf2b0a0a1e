#include "backends/static_graph/shard_tensors.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "backends/static_graph/graph_backend.h"
#include "base/error.h"

namespace contexture {
namespace {

constexpr size_t kMost = 1 << 20;  // layers, heads

/// "3" or "3_1" after a prefix.
bool read_numbers(std::string_view text, ShardTensor& part) {
  size_t* const into[] = {&part.layer, &part.head};
  for (size_t i = 0; i < 2; ++i) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *into[i]);
    if (error != std::errc() || *into[i] >= kMost) return false;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (text.empty()) {
      part.per_head = i == 1;
      return true;
    }
    if (!text.starts_with('_')) return false;
    text.remove_prefix(1);
  }
  return false;
}

std::optional<ShardTensor> read_tensor(const cxg_tensor& tensor, bool is_output) {
  ShardTensor part = {.role = TensorRole::tokens, .tensor = &tensor};
  const std::string_view name = tensor.name;
  struct Fixed {
    std::string_view name;
    TensorRole role;
  };
  constexpr Fixed inputs[] = {{"tokens", TensorRole::tokens},        {"input_pos", TensorRole::positions},
                              {"atten_mask", TensorRole::mask},      {"hidden_in", TensorRole::hidden},
                              {"rope_cos_in", TensorRole::rope_cos}, {"rope_sin_in", TensorRole::rope_sin}};
  constexpr Fixed outputs[] = {{"hidden_out", TensorRole::hidden},
                               {"rope_cos_out", TensorRole::rope_cos},
                               {"rope_sin_out", TensorRole::rope_sin},
                               {"logits", TensorRole::logits}};
  for (const Fixed& f : is_output ? std::span<const Fixed>(outputs) : std::span<const Fixed>(inputs)) {
    part.role = f.role;
    if (f.name == name) return part;
  }
  for (const TensorRole role : {TensorRole::k, TensorRole::v}) {
    const std::string prefix = fmt::format("{}_{}_", role == TensorRole::k ? 'k' : 'v', is_output ? "out" : "in");
    part.role = role;
    if (name.starts_with(prefix) && read_numbers(name.substr(prefix.size()), part)) return part;
  }
  return std::nullopt;
}

bool is_shape(const cxg_tensor& tensor, std::initializer_list<size_t> shape) {
  return std::ranges::equal(dims(tensor), shape);
}

class ShardReader {
 public:
  ShardReader(const cxg_graph& graph, std::string where) : graph_(graph), where_(std::move(where)) {}

  ShardGraph read(size_t index) {
    ShardGraph read = {.index = index, .tokens = 0, .inputs = parts(false), .outputs = parts(true)};
    const auto mask = std::ranges::find(read.inputs, TensorRole::mask, &ShardTensor::role);
    if (mask == read.inputs.end()) fail("{} has no input atten_mask", where_);
    const std::span<const uint32_t> d = dims(*mask->tensor);
    if (d.size() != 4 || d[0] != 1 || d[1] != 1 || d[2] == 0 || d[2] > d[3] || d[3] > kMost) {
      fail("{}, atten_mask: expected the shape [1,1,A,C], found {}", where_, shape_text(*mask->tensor));
    }
    read.tokens = d[2];
    check_shapes(read, d[2], d[3]);
    return read;
  }

 private:
  std::vector<ShardTensor> parts(bool is_output) const {
    const std::span<const cxg_tensor> tensors =
        is_output ? std::span(graph_.outputs, graph_.output_count) : std::span(graph_.inputs, graph_.input_count);
    std::vector<ShardTensor> parts;
    for (const cxg_tensor& tensor : tensors) {
      const std::optional<ShardTensor> part = read_tensor(tensor, is_output);
      if (!part)
        fail("{}: {} {} is no tensor of a compiled model", where_, is_output ? "output" : "input",
             printable(tensor.name));
      (void)tensor_bytes(tensor);
      const auto same = [&](const ShardTensor& p) {
        return p.role == part->role && p.layer == part->layer && p.head == part->head;
      };
      if (std::ranges::any_of(parts, same)) fail("{}: {} is there twice", where_, printable(tensor.name));
      parts.push_back(*part);
    }
    return parts;
  }

  void check_shapes(const ShardGraph& read, size_t a, size_t c) const {
    for (const bool is_output : {false, true}) {
      for (const ShardTensor& part : is_output ? read.outputs : read.inputs) {
        const cxg_tensor& t = *part.tensor;
        if (!fits(part, a, is_output ? a : c - a)) {
          fail("{}, {}: the shape {} is none for {} tokens and a context of {}", where_, printable(t.name),
               shape_text(t), a, c);
        }
        const bool whole = part.role == TensorRole::tokens || part.role == TensorRole::positions;
        const bool quantised = t.type == CXG_UFIXED_8 || t.type == CXG_UFIXED_16;
        if (whole != (t.type == CXG_INT_32) || (quantised && !(t.scale > 0 && t.scale < 1e30f))) {
          fail("{}, {}: {} with scale {} is none of its encodings", where_, printable(t.name), type_name(t.type),
               t.scale);
        }
      }
    }
  }

  static bool fits(const ShardTensor& part, size_t a, size_t columns) {
    const cxg_tensor& t = *part.tensor;
    const std::span<const uint32_t> d = dims(t);
    switch (part.role) {
      case TensorRole::tokens:
      case TensorRole::positions:
        return is_shape(t, {1, a});
      case TensorRole::mask:
        return true;
      case TensorRole::hidden:
      case TensorRole::logits:
        return d.size() == 3 && is_shape(t, {1, a, d[2]});
      case TensorRole::rope_cos:
      case TensorRole::rope_sin:
        return d.size() == 2 && d[0] == a;
      case TensorRole::k:
        if (part.per_head) return d.size() == 3 && is_shape(t, {1, d[1], columns});
        return d.size() == 4 && is_shape(t, {1, d[1], d[2], columns});
      case TensorRole::v:
        if (part.per_head) return d.size() == 3 && is_shape(t, {1, columns, d[2]});
        return d.size() == 4 && is_shape(t, {1, d[1], columns, d[3]});
    }
    return false;
  }

  const cxg_graph& graph_;
  const std::string where_;
};

std::string encoding_text(const cxg_tensor& t) {
  std::string text = fmt::format("{} {}", type_name(t.type), shape_text(t));
  if (t.scale != 0) text += fmt::format(", scale {:.6g} offset {}", t.scale, t.offset);
  return text;
}

const cxg_tensor* find(std::span<const ShardTensor> parts, TensorRole role, size_t layer = 0, size_t head = 0) {
  for (const ShardTensor& p : parts) {
    if (p.role == role && p.layer == layer && p.head == head) return p.tensor;
  }
  return nullptr;
}

/// One model's graphs of one kind, shard after shard.
class ShapeReader {
 public:
  explicit ShapeReader(std::span<const Shard> shards) : shards_(shards) {}

  StaticShape read() {
    if (shards_.empty()) fail("a model of no shards");
    const bool has_prefill = shards_[0].prefill.has_value(), has_decode = shards_[0].decode.has_value();
    for (const Shard& shard : shards_) {
      if (shard.prefill.has_value() == has_prefill && shard.decode.has_value() == has_decode) continue;
      fail("{}: expected the graphs of {}, {}; found {}", shard.name, shards_[0].name, graphs_text(shards_[0]),
           graphs_text(shard));
    }
    if (has_prefill) read_graphs(&Shard::prefill);
    if (has_decode) read_graphs(&Shard::decode);
    finish(has_prefill, has_decode);
    return std::move(shape_);
  }

 private:
  static std::string graphs_text(const Shard& shard) {
    return shard.prefill && shard.decode ? "prefill_forward and kv_forward"
           : shard.prefill               ? "prefill_forward"
                                         : "kv_forward";
  }

  void read_graphs(std::optional<ShardGraph> Shard::*which) {
    const bool first_time = shape_.layers_of_shard.empty();
    const ShardGraph& first = *(shards_[0].*which);
    size_t layer = 0;
    for (size_t i = 0; i < shards_.size(); ++i) {
      const Shard& shard = shards_[i];
      const ShardGraph& graph = *(shard.*which);
      same(shard, "tokens an execution", first.tokens, graph.tokens);
      check_ends(shard, graph, i);
      if (i > 0) check_link(shards_[i - 1], *(shards_[i - 1].*which), shard, graph);
      const size_t before = layer;
      read_layers(shard, graph, layer);
      if (first_time) {
        shape_.layers_of_shard.push_back(layer - before);
      } else {
        same(shard, "layers", shape_.layers_of_shard[i], layer - before);
      }
    }
    shape_.kv.layers = layer;
    (which == &Shard::prefill ? shape_.prefill_tokens : decode_tokens_) = first.tokens;
  }

  void same(const Shard& shard, std::string_view what, size_t expected, size_t found) const {
    if (expected != found) fail("{}: expected {} {}, found {}", shard.name, expected, what, found);
  }
  /// Notes a number that all graphs share, or holds it against what was noted.
  void note(const Shard& shard, std::string_view what, size_t& number, size_t found) const {
    if (number == 0) number = found;
    same(shard, what, number, found);
  }

  const cxg_tensor& need(const Shard& shard, std::span<const ShardTensor> parts, TensorRole role,
                         std::string_view what) const {
    const cxg_tensor* const tensor = find(parts, role);
    if (!tensor) fail("{} has no {}", shard.name, what);
    return *tensor;
  }

  void check_ends(const Shard& shard, const ShardGraph& graph, size_t i) {
    const cxg_tensor& mask = need(shard, graph.inputs, TensorRole::mask, "input atten_mask");
    note(shard, "tokens of context", shape_.context, mask.dims[3]);
    const bool first = i == 0, last = i + 1 == shards_.size();
    if (first) {
      need(shard, graph.inputs, TensorRole::tokens, "input tokens");
      if (graph.tokens < shape_.context) need(shard, graph.inputs, TensorRole::positions, "input input_pos");
    } else {
      need(shard, graph.inputs, TensorRole::hidden, "input hidden_in");
      const cxg_tensor* const expected = find((*first_graph(graph)).inputs, TensorRole::mask);
      same_encoding(shard, *expected, mask);
    }
    if (last) {
      const cxg_tensor& logits = need(shard, graph.outputs, TensorRole::logits, "output logits");
      note(shard, "logits", shape_.vocabulary, logits.dims[2]);
    }
    if (find(graph.inputs, TensorRole::tokens) && !first) fail("{}: only the first shard takes tokens", shard.name);
    if (find(graph.outputs, TensorRole::logits) && !last) fail("{}: only the last shard has logits", shard.name);
    if (find(graph.inputs, TensorRole::hidden) && first) fail("{}: the first shard takes hidden_in", shard.name);
    if (find(graph.outputs, TensorRole::hidden) && last) fail("{}: the last shard has hidden_out", shard.name);
  }

  const ShardGraph* first_graph(const ShardGraph& like) const {
    for (const auto which : {&Shard::prefill, &Shard::decode}) {
      const std::optional<ShardGraph>& g = shards_[0].*which;
      if (g && g->tokens == like.tokens) return &*g;
    }
    fail("{}: no graph of {} tokens", shards_[0].name, like.tokens);
  }

  void same_encoding(const Shard& shard, const cxg_tensor& expected, const cxg_tensor& found, bool same_shape = true) {
    if (expected.type == found.type && expected.scale == found.scale && expected.offset == found.offset &&
        (!same_shape || std::ranges::equal(dims(expected), dims(found)))) {
      return;
    }
    fail("{}, {}: expected {} as of {}, found {}", shard.name, printable(found.name), encoding_text(expected),
         printable(expected.name), encoding_text(found));
  }

  void check_link(const Shard& before, const ShardGraph& producer, const Shard& shard, const ShardGraph& graph) {
    const cxg_tensor& out = need(before, producer.outputs, TensorRole::hidden, "output hidden_out");
    const cxg_tensor& in = need(shard, graph.inputs, TensorRole::hidden, "input hidden_in");
    same_encoding(shard, out, in);
    note(shard, "hidden numbers", shape_.hidden, in.dims[2]);
    for (const TensorRole role : {TensorRole::rope_cos, TensorRole::rope_sin}) {
      const cxg_tensor* const rope = find(graph.inputs, role);
      if (!rope) continue;
      same_encoding(shard, need(shards_[0], first_graph(graph)->outputs, role, "output rope_cos_out and rope_sin_out"),
                    *rope);
    }
  }

  /// Layers that a graph puts out K and V of: those that follow `layer`, every head of each.
  void read_layers(const Shard& shard, const ShardGraph& graph, size_t& layer) {
    size_t found = 0;
    for (; find(graph.outputs, TensorRole::k, layer); ++layer) {
      size_t heads = 0;
      for (; const cxg_tensor* const k = find(graph.outputs, TensorRole::k, layer, heads); ++heads) {
        read_kv(shard, graph, layer, heads, *k);
        found += 2;
      }
      if (kv_per_head_) note(shard, "KV heads", shape_.kv.heads, heads);
    }
    if (found == 0) fail("{}: expected K and V of layer {}, found none", shard.name, layer);
    const bool cached = graph.tokens < shape_.context;
    same(shard, "outputs of K and V", found, count_kv(graph.outputs));
    same(shard, "inputs of K and V", cached ? found : 0, count_kv(graph.inputs));
  }

  static size_t count_kv(std::span<const ShardTensor> parts) {
    return static_cast<size_t>(std::ranges::count_if(
        parts, [](const ShardTensor& p) { return p.role == TensorRole::k || p.role == TensorRole::v; }));
  }

  void read_kv(const Shard& shard, const ShardGraph& graph, size_t layer, size_t head, const cxg_tensor& k) {
    const std::string what = fmt::format("V of layer {} head {}", layer, head);
    const cxg_tensor* const v = find(graph.outputs, TensorRole::v, layer, head);
    if (!v) fail("{} has no output {}", shard.name, what);
    const bool per_head = k.rank == 3;
    if (std::exchange(seen_kv_, true) && per_head != kv_per_head_) {
      fail("{}, {}: some K and V have a tensor a head and some have not", shard.name, printable(k.name));
    }
    kv_per_head_ = per_head;
    if (v->rank != k.rank) fail("{} has K {} and V {}", shard.name, shape_text(k), shape_text(*v));
    note(shard, "channels a head", shape_.kv.head_dim, per_head ? k.dims[1] : k.dims[2]);
    note(shard, "channels a head", shape_.kv.head_dim, per_head ? v->dims[2] : v->dims[3]);
    if (!per_head) note(shard, "KV heads", shape_.kv.heads, k.dims[1]);
    if (!per_head) note(shard, "KV heads", shape_.kv.heads, v->dims[1]);
    for (const auto& [role, out] : {std::pair(TensorRole::k, &k), std::pair(TensorRole::v, v)}) {
      note(shard, "bytes a number of K and V", kv_element_bytes_, element_bytes(out->type));
      // Rows are copied and never requantised: every graph must mean the same by them.
      const auto [known, is_new] = kv_encodings_.try_emplace({layer, head, role}, out);
      if (!is_new) same_encoding(shard, *known->second, *out, /*same_shape=*/false);
      if (graph.tokens == shape_.context) continue;
      const cxg_tensor* const in = find(graph.inputs, role, layer, head);
      if (!in) fail("{} has an output {} and no such input", shard.name, printable(out->name));
      same_encoding(shard, *out, *in, /*same_shape=*/false);
      if (in->rank != out->rank || !same_channels(*in, *out, role)) {
        fail("{}: {} is {} and {} is {}", shard.name, printable(in->name), shape_text(*in), printable(out->name),
             shape_text(*out));
      }
    }
  }

  /// All but the tokens' dimension, which is the last of K and the last but one of V.
  static bool same_channels(const cxg_tensor& a, const cxg_tensor& b, TensorRole role) {
    const size_t tokens = role == TensorRole::k ? a.rank - 1 : a.rank - 2;
    for (size_t i = 0; i < a.rank; ++i) {
      if (i != tokens && a.dims[i] != b.dims[i]) return false;
    }
    return true;
  }

  void finish(bool has_prefill, bool has_decode) {
    if (has_decode && decode_tokens_ != 1) {
      fail("{}, kv_forward: expected 1 token an execution, found {}", shards_[0].name, decode_tokens_);
    }
    if (!has_decode && shape_.prefill_tokens != shape_.context) {
      fail("{}: prefill_forward of {} tokens and a context of {} wants a kv_forward beside it, and there is none",
           shards_[0].name, shape_.prefill_tokens, shape_.context);
    }
    if (has_decode && shape_.prefill_tokens >= shape_.context) {
      fail("{}: prefill_forward of {} tokens leaves no cache in a context of {}", shards_[0].name,
           shape_.prefill_tokens, shape_.context);
    }
    shape_.decodes = has_decode;
    FixedKvShape& kv = shape_.kv;
    kv.context = shape_.context;
    kv.chunk = has_prefill ? shape_.prefill_tokens : 1;
    kv.step = has_decode ? 1 : shape_.prefill_tokens;
    kv.element_bytes = kv_element_bytes_;
    kv.per_head = kv_per_head_;
  }

  const std::span<const Shard> shards_;
  StaticShape shape_;
  size_t decode_tokens_ = 0, kv_element_bytes_ = 0;
  bool seen_kv_ = false, kv_per_head_ = false;
  std::map<std::tuple<size_t, size_t, TensorRole>, const cxg_tensor*> kv_encodings_;
};

}  // namespace

Shard read_shard(std::span<const cxg_graph* const> graphs, const std::string& name) {
  Shard shard = {.name = name, .prefill = {}, .decode = {}};
  for (size_t i = 0; i < graphs.size(); ++i) {
    const std::string_view graph = graphs[i]->name;
    std::optional<ShardGraph>* const into = graph == "prefill_forward" ? &shard.prefill
                                            : graph == "kv_forward"    ? &shard.decode
                                                                       : nullptr;
    if (!into || *into) {
      fail("{}: expected a prefill_forward and a kv_forward at most, found {}", name, printable(graph));
    }
    *into = ShardReader(*graphs[i], fmt::format("{}, {}", name, graph)).read(i);
  }
  if (!shard.prefill && !shard.decode) fail("{}: expected prefill_forward or kv_forward, found no graph", name);
  return shard;
}

StaticShape read_shape(std::span<const Shard> shards) {
  return ShapeReader(shards).read();
}

std::string describe(const Shard& shard) {
  std::string text;
  for (const auto* graph : {&shard.prefill, &shard.decode}) {
    if (!*graph) continue;
    const ShardGraph& g = **graph;
    text += fmt::format("{}, {}: {} inputs, {} outputs\n", shard.name,
                        graph == &shard.prefill ? "prefill_forward" : "kv_forward", g.inputs.size(), g.outputs.size());
    for (const bool is_output : {false, true}) {
      for (const ShardTensor& part : is_output ? g.outputs : g.inputs) {
        text += fmt::format("  {} {:<14} {:>10} B  {}\n", is_output ? "out" : "in ", part.tensor->name,
                            tensor_bytes(*part.tensor), encoding_text(*part.tensor));
      }
    }
  }
  return text;
}

}  // namespace contexture
