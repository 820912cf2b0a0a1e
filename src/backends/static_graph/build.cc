#include "backends/static_graph/build.h"

#include <algorithm>
#include <cmath>

#include "backends/static_graph/constants.h"
#include "base/error.h"

namespace contexture {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
/// Masked scores end up this far below the smallest score: exp(-20) is nothing in 16 bits.
constexpr float kMaskedBelow = 20;
/// What the mask takes off, where scores span less than that.
constexpr float kMaskDepth = 255;

constexpr Encoding kProbabilityEncoding{1.f / 65535, 0};

uint32_t u32(size_t value) {
  return static_cast<uint32_t>(value);
}

/// The constants of a shard, each made once whichever graph asks for it first.
class Constants {
 public:
  Constants(const ModelFile& file, const ModelConfig& config, const GraphOptions& options, ShardDraft& draft)
      : file_(file), c_(config), options_(options), draft_(draft) {}

  bool fixed() const { return options_.recipe.fixed_point; }
  bool has(const std::string& tensor) const { return file_.find(tensor) != nullptr; }

  uint32_t matrix(const std::string& name, std::string_view linear, size_t layer, size_t rows, size_t columns) {
    const auto [tensor, first_row] = find_matrix(name, linear, layer);
    GraphConstant constant{
        .name = name, .kind = options_.recipe.kind_of(linear, layer), .rows = rows, .columns = columns};
    if (constant.kind == ConstantKind::i4_blocks) constant.block = options_.recipe.block;
    return add(std::move(constant), {.kind = ConstantSource::Kind::matrix, .tensor = tensor, .first_row = first_row});
  }

  uint32_t norm(const std::string& name, size_t columns) {
    const StoredTensor* tensor = file_.find(name);
    GraphConstant constant{.name = name, .columns = columns};
    if (fixed()) {
      std::vector<float> values(columns);
      info(tensor->format).decode(tensor->data.data(), values.data(), columns);
      float largest = 0;
      for (const float v : values) largest = std::max(largest, std::fabs(v));
      constant.kind = ConstantKind::i16;
      constant.encoding.scale = largest > 0 ? largest / 32767 : 1.f;
    }
    return add(std::move(constant), {.kind = ConstantSource::Kind::vector, .tensor = tensor});
  }

  uint32_t bias(const std::string& name, uint32_t weight, float input_scale) {
    GraphConstant constant{.name = name, .columns = draft_.program.constants[weight].rows};
    if (fixed()) constant.kind = ConstantKind::i64;
    return add(
        std::move(constant),
        {.kind = ConstantSource::Kind::bias, .tensor = file_.find(name), .weight = weight, .input_scale = input_scale});
  }

  uint32_t embedding(Encoding encoding) {
    return dense({.name = "token_embd.weight", .rows = c_.vocabulary, .columns = c_.dim, .encoding = encoding},
                 {.kind = ConstantSource::Kind::embedding, .tensor = file_.find("token_embd.weight")});
  }

  uint32_t rope(ConstantSource::Kind kind, Encoding encoding) {
    return dense({.name = kind == ConstantSource::Kind::cos ? "rope_cos" : "rope_sin",
                  .rows = options_.context,
                  .columns = c_.rope().dim / 2,
                  .encoding = encoding},
                 {.kind = kind});
  }

 private:
  uint32_t dense(GraphConstant constant, ConstantSource source) {
    if (fixed()) {
      constant.kind = ConstantKind::u16;
    } else {
      constant.encoding = {};
    }
    return add(std::move(constant), source);
  }

  uint32_t add(GraphConstant constant, ConstantSource source) {
    std::vector<GraphConstant>& all = draft_.program.constants;
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i].name == constant.name) return u32(i);
    }
    all.push_back(std::move(constant));
    draft_.sources.push_back(source);
    return u32(all.size() - 1);
  }

  /// A linear's tensor of its own, or its place in one that joins several (Phi-3's files).
  std::pair<const StoredTensor*, size_t> find_matrix(const std::string& name, std::string_view linear, size_t layer) {
    if (linear == "output" && !has(name)) return {file_.find("token_embd.weight"), 0};
    const size_t q_rows = c_.heads * c_.head_dim, kv_rows = c_.kv_heads * c_.head_dim;
    if (const StoredTensor* joined = file_.find(fmt::format("blk.{}.attn_qkv.weight", layer))) {
      if (linear == "attn_q") return {joined, 0};
      if (linear == "attn_k") return {joined, q_rows};
      if (linear == "attn_v") return {joined, q_rows + kv_rows};
    }
    if (!has(fmt::format("blk.{}.ffn_gate.weight", layer))) {
      const StoredTensor* joined = file_.find(fmt::format("blk.{}.ffn_up.weight", layer));
      if (linear == "ffn_gate") return {joined, 0};
      if (linear == "ffn_up") return {joined, c_.ffn_dim};
    }
    return {file_.find(name), 0};
  }

  const ModelFile& file_;
  const ModelConfig& c_;
  const GraphOptions& options_;
  ShardDraft& draft_;
};

/// Makes one graph of a shard: `tokens_` an execution. Reads like the forward pass (model/forward.cc).
class GraphBuilder {
 public:
  GraphBuilder(Constants& constants, const ModelConfig& config, const ShardRange& shard, const GraphOptions& options,
               const Ranges& ranges, size_t tokens)
      : constants_(constants), c_(config), shard_(shard), options_(options), ranges_(ranges), tokens_(tokens) {}

  Graph build(const std::string& name) {
    graph_.name = name;
    begin();
    for (size_t layer = shard_.first_layer; layer < shard_.first_layer + shard_.layers; ++layer) {
      layer_ = layer;
      attention();
      feed_forward();
    }
    end();
    graph_.outputs.insert(graph_.outputs.end(), kv_outputs_.begin(), kv_outputs_.end());
    return std::move(graph_);
  }

 private:
  bool fixed() const { return options_.recipe.fixed_point; }
  size_t cached() const { return options_.context - tokens_; }
  std::string site(std::string_view name) const { return fmt::format("blk.{}.{}", layer_, name); }

  Range range(std::string_view name) const {
    const auto found = ranges_.find(name);
    if (found == ranges_.end()) fail("the calibration saw no {}; it is of another model", name);
    return found->second;
  }
  Encoding encoding(std::string_view name) const { return fixed() ? activation_encoding(range(name)) : Encoding(); }

  uint32_t tensor(std::string name, const std::vector<size_t>& dims, Encoding encoding) {
    GraphTensor t{
        .name = std::move(name), .type = fixed() ? NumberType::u16 : NumberType::f32, .dims = {}, .encoding = encoding};
    if (!fixed()) t.encoding = {};
    for (const size_t d : dims) t.dims.push_back(u32(d));
    graph_.tensors.push_back(std::move(t));
    return u32(graph_.tensors.size() - 1);
  }
  /// Of a value whose range the calibration saw.
  uint32_t value(std::string name, const std::vector<size_t>& dims) {
    const Encoding e = encoding(name);
    return tensor(std::move(name), dims, e);
  }
  uint32_t input(uint32_t tensor) {
    graph_.inputs.push_back(tensor);
    return tensor;
  }
  uint32_t output(uint32_t tensor) {
    graph_.outputs.push_back(tensor);
    return tensor;
  }
  const GraphTensor& at(uint32_t tensor) const { return graph_.tensors[tensor]; }

  uint32_t add_node(GraphNode node) {
    graph_.nodes.push_back(std::move(node));
    return graph_.nodes.back().output;
  }

  /// A name and a shape of the last step's result, where it leaves the graph.
  uint32_t rename(uint32_t tensor, std::string name) {
    graph_.tensors[tensor].name = std::move(name);
    return tensor;
  }

  void begin() {
    const Encoding rope_encoding{static_cast<float>(c_.rope().magnitude / 32767), 32768};
    const size_t half = c_.rope().dim / 2;
    if (!shard_.first()) {
      const std::string from = fmt::format("blk.{}.ffn_add", shard_.first_layer - 1);
      hidden_ = input(tensor("hidden_in", {1, tokens_, c_.dim}, encoding(from)));
      cos_ = input(tensor("rope_cos_in", {tokens_, half}, rope_encoding));
      sin_ = input(tensor("rope_sin_in", {tokens_, half}, rope_encoding));
    } else {
      const uint32_t ids = input(integers("tokens")), positions = input(integers("input_pos"));
      hidden_ = value("embedding", {1, tokens_, c_.dim});
      add_node({.op = Operator::gather,
                .inputs = {ids},
                .constants = {constants_.embedding(at(hidden_).encoding)},
                .output = hidden_});
      const bool shared = !shard_.last();
      cos_ = tensor(shared ? "rope_cos_out" : "rope_cos", {tokens_, half}, rope_encoding);
      sin_ = tensor(shared ? "rope_sin_out" : "rope_sin", {tokens_, half}, rope_encoding);
      for (const auto& [out, kind] : {std::pair(cos_, ConstantSource::Kind::cos), {sin_, ConstantSource::Kind::sin}}) {
        add_node({.op = Operator::gather,
                  .inputs = {positions},
                  .constants = {constants_.rope(kind, rope_encoding)},
                  .output = out});
        if (shared) output(out);
      }
    }
    mask_ = input(tensor("atten_mask", {1, 1, tokens_, options_.context}, fixed() ? mask_encoding() : Encoding()));
  }

  uint32_t integers(const char* name) {
    const uint32_t t = tensor(name, {1, tokens_}, {});
    graph_.tensors[t].type = NumberType::i32;
    graph_.tensors[t].encoding = {};
    return t;
  }

  void end() {
    if (!shard_.last()) {
      output(rename(hidden_, "hidden_out"));
      return;
    }
    const uint32_t normed = norm(hidden_, "output_norm.weight", "output_norm", c_.dim);
    uint32_t logits = linear(normed, "output", "output.weight", "logits", c_.vocabulary, c_.logit_scale);
    if (c_.logit_softcap != 0) {
      rename(logits, "logits_uncapped");
      logits = capped(logits, c_.logit_softcap, "logits", encoding("logits"));
    }
    output(logits);
  }

  uint32_t norm(uint32_t x, const std::string& weight, const std::string& name, size_t columns) {
    const uint32_t out = value(name, as_sizes(at(x).dims));
    return add_node({.op = Operator::rms_norm,
                     .inputs = {x},
                     .constants = {constants_.norm(weight, columns)},
                     .output = out,
                     .epsilon = c_.norm_epsilon});
  }

  uint32_t linear(uint32_t x, std::string_view linear, const std::string& weight, const std::string& name, size_t rows,
                  double factor = 1) {
    const GraphTensor& in = at(x);
    const float input_scale = in.encoding.scale;
    const uint32_t matrix = constants_.matrix(weight, linear, layer_, rows, in.dim(0));
    GraphNode node{.op = Operator::linear, .inputs = {x}, .constants = {matrix}, .output = 0, .factor = factor};
    const std::string bias = weight.substr(0, weight.size() - 6) + "bias";
    if (constants_.has(bias)) node.constants.push_back(constants_.bias(bias, matrix, input_scale));
    // A last linear whose logits are capped has them under a name of its own in the calibration.
    node.output = linear == "output" && c_.logit_softcap != 0
                      ? tensor(name, {1, tokens_, rows}, encoding("logits_uncapped"))
                      : value(name, {1, tokens_, rows});
    return add_node(std::move(node));
  }
  uint32_t layer_linear(uint32_t x, const char* linear_name, const char* name, size_t rows) {
    return linear(x, linear_name, site(linear_name) + ".weight", site(name), rows);
  }

  uint32_t capped(uint32_t x, double cap, const std::string& name, Encoding encoding) {
    return add_node({.op = Operator::softcap,
                     .inputs = {x},
                     .constants = {},
                     .output = tensor(name, as_sizes(at(x).dims), encoding),
                     .factor = cap});
  }

  static std::vector<size_t> as_sizes(const std::vector<uint32_t>& dims) { return {dims.begin(), dims.end()}; }

  uint32_t rotated(uint32_t x, const char* name) {
    if (c_.each_layer[layer_].rope == LayerConfig::no_rope) return x;
    return add_node({.op = Operator::rope,
                     .inputs = {x, cos_, sin_},
                     .constants = {},
                     .output = value(site(name), as_sizes(at(x).dims)),
                     .width = u32(c_.rope().dim),
                     .head_dim = u32(c_.head_dim),
                     .style = c_.rope().style});
  }

  uint32_t permuted(uint32_t x, std::string name, std::vector<size_t> dims, std::vector<uint32_t> view,
                    std::vector<uint32_t> order) {
    const uint32_t out = like(x, std::move(name), std::move(dims));
    return add_node({.op = Operator::permute,
                     .inputs = {x},
                     .constants = {},
                     .output = out,
                     .view = std::move(view),
                     .order = std::move(order)});
  }
  /// A tensor of another shape with the type and encoding of `x`.
  uint32_t like(uint32_t x, std::string name, const std::vector<size_t>& dims) {
    const uint32_t out = tensor(std::move(name), dims, {});
    graph_.tensors[out].type = at(x).type;
    graph_.tensors[out].encoding = at(x).encoding;
    return out;
  }

  void attention() {
    const size_t heads = c_.heads, kv_heads = c_.kv_heads, head_dim = c_.head_dim, group = heads / kv_heads;
    const uint32_t normed = norm(hidden_, site("attn_norm.weight"), site("attn_norm"), c_.dim);
    uint32_t q = layer_linear(normed, "attn_q", "q", heads * head_dim);
    uint32_t k = layer_linear(normed, "attn_k", "k", kv_heads * head_dim);
    const uint32_t v = layer_linear(normed, "attn_v", "v", kv_heads * head_dim);
    if (c_.head_norms) {
      q = norm(q, site("attn_q_norm.weight"), site("q_norm"), head_dim);
      k = norm(k, site("attn_k_norm.weight"), site("k_norm"), head_dim);
    }
    q = rotated(q, "q_rope");
    k = rotated(k, "k_rope");
    const uint32_t all_k = cache(k, 'k'), all_v = cache(v, 'v');

    const std::vector<size_t> score_dims = {kv_heads, group * tokens_, options_.context};
    q = permuted(q, site("q_heads"), {kv_heads, group * tokens_, head_dim},
                 {u32(tokens_), u32(kv_heads), u32(group), u32(head_dim)}, {1, 2, 0, 3});
    // Of scores only those count that are not masked; the others may saturate. Before a cap they all do.
    const bool has_cap = c_.attention_softcap != 0;
    uint32_t scores = tensor(site("scores"), score_dims, encoding(site(has_cap ? "scores" : "masked")));
    add_node({.op = Operator::matmul,
              .inputs = {q, all_k},
              .constants = {},
              .output = scores,
              .factor = c_.attention_scale});
    if (has_cap) {
      scores = capped(scores, c_.attention_softcap, site("scores_capped"), encoding(site("masked")));
    }
    const uint32_t masked = tensor(site("masked"), score_dims, fixed() ? masked_encoding() : Encoding());
    add_node({.op = Operator::mask, .inputs = {scores, mask_}, .constants = {}, .output = masked});
    const uint32_t probabilities = tensor(site("softmax"), score_dims, kProbabilityEncoding);
    add_node({.op = Operator::softmax, .inputs = {masked}, .constants = {}, .output = probabilities});
    const uint32_t attended = value(site("attended"), {kv_heads, group * tokens_, head_dim});
    add_node({.op = Operator::matmul, .inputs = {probabilities, all_v}, .constants = {}, .output = attended});
    const uint32_t joined = permuted(attended, site("attended_heads"), {1, tokens_, heads * head_dim},
                                     {u32(kv_heads), u32(group), u32(tokens_), u32(head_dim)}, {2, 0, 1, 3});
    add_to_hidden(layer_linear(joined, "attn_output", "attn_out", c_.dim), "post_attention_norm", "attn");
  }

  /// Deep enough to take the largest score of any layer below the smallest: the shards share one mask.
  Encoding mask_encoding() const {
    float depth = kMaskDepth;
    for (size_t layer = 0; layer < c_.layers; ++layer) {
      const Range r = range(fmt::format("blk.{}.masked", layer));
      depth = std::max(depth, r.high - r.low + kMaskedBelow + 1);
    }
    return {depth / 65535, 65535};
  }

  /// Masked scores saturate at kMaskedBelow under the smallest score that there can be; what is above it is the scores'
  /// own.
  Encoding masked_encoding() const {
    Range r = range(site("masked"));
    r.low -= kMaskedBelow;
    return activation_encoding(r);
  }

  /// New K or V (tokens, kv_heads · head_dim) in its cache's encoding: out of the graph, and after what the cache
  /// holds. K becomes (kv_heads, head_dim, tokens), V (kv_heads, tokens, head_dim).
  uint32_t cache(uint32_t x, char letter) {
    const bool is_k = letter == 'k';
    const size_t kv_heads = c_.kv_heads, head_dim = c_.head_dim;
    const size_t bits = options_.recipe.kv_bits;
    if (fixed()) {
      const uint32_t stored = like(x, site(fmt::format("{}_stored", letter)), as_sizes(at(x).dims));
      graph_.tensors[stored].type = bits == 8 ? NumberType::u8 : NumberType::u16;
      graph_.tensors[stored].encoding = kv_encoding(range(at(x).name), bits);
      x = add_node({.op = Operator::convert, .inputs = {x}, .constants = {}, .output = stored});
    }
    const auto shape = [&](size_t first, size_t heads, size_t tokens) {
      std::vector<size_t> dims(first, 1);
      if (heads > 0) dims.push_back(heads);
      dims.push_back(is_k ? head_dim : tokens);
      dims.push_back(is_k ? tokens : head_dim);
      return dims;
    };
    const std::vector<uint32_t> order = is_k ? std::vector<uint32_t>{1, 2, 0} : std::vector<uint32_t>{1, 0, 2};
    const bool per_head = options_.per_head;
    const uint32_t fresh =
        permuted(x, per_head ? site(fmt::format("{}_heads", letter)) : fmt::format("{}_out_{}", letter, layer_),
                 shape(1, kv_heads, tokens_), {u32(tokens_), u32(kv_heads), u32(head_dim)}, order);
    if (!per_head) kv_outputs_.push_back(fresh);
    for (size_t head = 0; per_head && head < kv_heads; ++head) {
      const uint32_t one = like(x, fmt::format("{}_out_{}_{}", letter, layer_, head), shape(1, 0, tokens_));
      kv_outputs_.push_back(add_node({.op = Operator::slice,
                                      .inputs = {fresh},
                                      .constants = {},
                                      .output = one,
                                      .axis = 2,
                                      .begin = u32(head),
                                      .width = 1}));
    }
    if (cached() == 0) return fresh;

    uint32_t past = kNone;
    if (!per_head) {
      past = input(like(x, fmt::format("{}_in_{}", letter, layer_), shape(1, kv_heads, cached())));
    } else {
      std::vector<uint32_t> each;
      for (size_t head = 0; head < kv_heads; ++head) {
        each.push_back(input(like(x, fmt::format("{}_in_{}_{}", letter, layer_, head), shape(1, 0, cached()))));
      }
      past = like(x, site(fmt::format("{}_past", letter)), shape(1, kv_heads, cached()));
      add_node({.op = Operator::concat, .inputs = std::move(each), .constants = {}, .output = past, .axis = 2});
    }
    const uint32_t all = like(x, site(fmt::format("{}_all", letter)), shape(1, kv_heads, options_.context));
    return add_node(
        {.op = Operator::concat, .inputs = {past, fresh}, .constants = {}, .output = all, .axis = is_k ? 0u : 1u});
  }

  void add_to_hidden(uint32_t x, const char* post_norm, const char* part) {
    if (c_.post_norms) {
      x = norm(x, site(fmt::format("{}.weight", post_norm)), site(fmt::format("{}_post_norm", part)), c_.dim);
    }
    const uint32_t sum = value(site(fmt::format("{}_add", part)), {1, tokens_, c_.dim});
    hidden_ = add_node(
        {.op = Operator::add, .inputs = {hidden_, x}, .constants = {}, .output = sum, .factor = c_.residual_scale});
  }

  void feed_forward() {
    const uint32_t normed = norm(hidden_, site("ffn_norm.weight"), site("ffn_norm"), c_.dim);
    const uint32_t gate = layer_linear(normed, "ffn_gate", "gate", c_.ffn_dim);
    const uint32_t up = layer_linear(normed, "ffn_up", "up", c_.ffn_dim);
    const std::vector<size_t> dims = {1, tokens_, c_.ffn_dim};
    const uint32_t activated = value(site("activated"), dims);
    add_node({.op = c_.gate == ModelConfig::Gate::silu ? Operator::silu : Operator::gelu,
              .inputs = {gate},
              .constants = {},
              .output = activated});
    const uint32_t product = value(site("gated"), dims);
    add_node({.op = Operator::multiply, .inputs = {activated, up}, .constants = {}, .output = product});
    add_to_hidden(layer_linear(product, "ffn_down", "ffn_out", c_.dim), "post_ffw_norm", "ffn");
  }

  Constants& constants_;
  const ModelConfig& c_;
  const ShardRange& shard_;
  const GraphOptions& options_;
  const Ranges& ranges_;
  const size_t tokens_;
  size_t layer_ = 0;
  Graph graph_;
  uint32_t hidden_ = kNone, cos_ = kNone, sin_ = kNone, mask_ = kNone;
  std::vector<uint32_t> kv_outputs_;
};

}  // namespace

void Range::add(std::span<const float> values) {
  float lowest = low, highest = high;
  for (const float v : values) {
    lowest = v < lowest ? v : lowest;
    highest = v > highest ? v : highest;
  }
  low = lowest;
  high = highest;
}

void Range::add_finite(std::span<const float> values) {
  for (const float v : values) {
    if (v == -INFINITY) continue;
    low = std::min(low, v);
    high = std::max(high, v);
  }
}

Encoding activation_encoding(Range range) {
  const float span = range.high - range.low;
  if (!(span > 1e-20f)) return {1.f / 65535, 0};
  const float scale = span / 65535;
  return {scale, std::clamp(static_cast<int32_t>(std::lround(-range.low / scale)), 0, 65535)};
}

Encoding kv_encoding(Range range, size_t bits) {
  const int32_t middle = bits == 8 ? 128 : 32768;
  const float largest = std::max(-range.low, range.high);
  return {(largest > 1e-20f ? largest : 1.f) / static_cast<float>(middle - 1), middle};
}

std::vector<ShardRange> split_layers(size_t layers, size_t shards) {
  if (shards < 1 || shards > layers) fail("{} shards of {} layers; give 1 to {}", shards, layers, layers);
  std::vector<ShardRange> ranges;
  size_t first = 0;
  for (size_t i = 0; i < shards; ++i) {
    const size_t count = layers / shards + (i < layers % shards ? 1 : 0);
    ranges.push_back({.index = i, .count = shards, .first_layer = first, .layers = count});
    first += count;
  }
  return ranges;
}

void check_can_compile(const ModelConfig& config, size_t context) {
  if (config.experts > 0) fail("graphs of fixed shapes cannot choose experts; compile a dense model");
  if (config.ropes.size() > 1) fail("this model rotates its layers differently, which compiled graphs do not");
  for (const LayerConfig& layer : config.each_layer) {
    if (layer.window > 0 && static_cast<size_t>(layer.window) < context) {
      fail("this model's layers see {} tokens, fewer than the context of {}; compile it with --context {}",
           layer.window, context, layer.window);
    }
  }
}

ShardDraft build_shard(const ModelFile& file, const ModelConfig& config, const ShardRange& shard,
                       const GraphOptions& options, const Ranges& ranges) {
  ShardDraft draft;
  Constants constants(file, config, options, draft);
  const auto add = [&](const char* name, size_t tokens) {
    GraphBuilder builder(constants, config, shard, options, ranges, tokens);
    draft.program.graphs.push_back(builder.build(name));
  };
  if (options.prefill_length > 0) add("prefill_forward", options.prefill_length);
  if (options.decode) add("kv_forward", 1);
  check(draft.program);
  return draft;
}

}  // namespace contexture
