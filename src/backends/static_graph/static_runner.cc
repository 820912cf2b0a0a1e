#include "backends/static_graph/static_runner.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/error.h"

namespace contexture {
namespace {

constexpr size_t kBufferAlignment = 128;

float real(const cxg_tensor& tensor, int64_t raw) {
  return static_cast<float>(static_cast<double>(tensor.scale) * static_cast<double>(raw + tensor.offset));
}

/// Numbers of a float or ufixed tensor as real ones; `stride` between them in memory.
void dequantise(const cxg_tensor& tensor, const std::byte* from, size_t stride, std::span<float> to) {
  const auto each = [&](auto number, const auto& convert) {
    for (size_t i = 0; i < to.size(); ++i) {
      std::memcpy(&number, from + i * stride * sizeof(number), sizeof(number));
      to[i] = convert(number);
    }
  };
  const auto convert = [&](auto raw) { return real(tensor, raw); };
  switch (tensor.type) {
    case CXG_FLOAT_32:
      return each(float{}, [](float x) { return x; });
    case CXG_UFIXED_16:
      return each(uint16_t{}, convert);
    case CXG_UFIXED_8:
      return each(uint8_t{}, convert);
  }
  assert(false);
}

const cxg_tensor& tensor_of(std::span<const ShardTensor> parts, TensorRole role) {
  return *std::ranges::find(parts, role, &ShardTensor::role)->tensor;
}

}  // namespace

StaticRunner::StaticRunner(GraphBackend backend, const std::vector<ShardBytes>& shards, const StaticRunOptions& options)
    : device_(std::move(backend), {.threads = std::max(1u, options.threads),
                                   .log_level = options.log_level,
                                   .options = options.backend_options.c_str()}) {
  for (const ShardBytes& shard : shards) {
    contexts_.push_back(std::make_unique<GraphContext>(device_, shard.bytes, shard.name));
    shards_.push_back(read_shard(contexts_.back()->graphs(), shard.name));
  }
  shape_ = read_shape(shards_);
  choose_mode(options.mode);
  kv_.emplace(shape_.kv, options.update);
  const ShardGraph& first = *(shards_[0].*(runs(&Shard::decode) ? &Shard::decode : &Shard::prefill));
  mask_.emplace(tensor_of(first.inputs, TensorRole::mask));
  plan_buffers();
  io_ = device_.allocate(at_.bytes);
  std::memset(io_, 0, at_.bytes);
  kv_memory_ = device_.allocate(kv_->bytes());
  // Columns that hold no token are masked, but must not be garbage that was never written.
  std::memset(kv_memory_, 0, kv_->bytes());
  kv_->attach(kv_memory_);
  for (const Which which : {&Shard::prefill, &Shard::decode}) {
    if (!runs(which)) continue;
    for (size_t i = 0; i < shards_.size(); ++i) bind_shared(i, which);
    kv_->arrange((shards_[0].*which)->tokens);
    bind_kv(which);
  }
  logits_.resize(shape_.vocabulary);
}

StaticRunner::~StaticRunner() {
  contexts_.clear();  // before their device
}

void StaticRunner::choose_mode(std::optional<GraphMode> wanted) {
  const bool has_prefill = shape_.prefill_tokens > 0;
  mode_ = wanted.value_or(!shape_.decodes ? GraphMode::prefill : has_prefill ? GraphMode::hybrid : GraphMode::kv);
  const bool can = mode_ == GraphMode::prefill  ? !shape_.decodes
                   : mode_ == GraphMode::hybrid ? has_prefill && shape_.decodes
                                                : shape_.decodes;
  if (!can) {
    fail("mode {} is not in these graphs, which are for {}; compile with --mode {}", name(mode_),
         !shape_.decodes ? "prefill alone"
         : has_prefill   ? "hybrid and kv"
                         : "kv alone",
         name(mode_));
  }
  if (mode_ == GraphMode::kv) shape_.kv.chunk = 1;
}

bool StaticRunner::runs(Which which) const {
  return which == &Shard::prefill ? mode_ != GraphMode::kv : mode_ != GraphMode::prefill;
}

void StaticRunner::plan_buffers() {
  const auto largest = [&](TensorRole role) {
    size_t bytes = 0;
    for (const Shard& shard : shards_) {
      for (const Which which : {&Shard::prefill, &Shard::decode}) {
        if (!runs(which)) continue;
        const ShardGraph& graph = *(shard.*which);
        for (const auto* parts : {&graph.inputs, &graph.outputs}) {
          for (const ShardTensor& part : *parts) {
            if (part.role == role) bytes = std::max(bytes, tensor_bytes(*part.tensor));
          }
        }
      }
    }
    return bytes;
  };
  const auto place = [&](size_t& offset, TensorRole role) {
    offset = at_.bytes;
    at_.bytes += (largest(role) + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
  };
  place(at_.tokens, TensorRole::tokens);
  place(at_.positions, TensorRole::positions);
  place(at_.mask, TensorRole::mask);
  place(at_.hidden[0], TensorRole::hidden);
  place(at_.hidden[1], TensorRole::hidden);
  place(at_.rope_cos, TensorRole::rope_cos);
  place(at_.rope_sin, TensorRole::rope_sin);
  place(at_.logits, TensorRole::logits);
}

size_t StaticRunner::shared_offset(const ShardTensor& part, size_t shard, bool is_output) const {
  switch (part.role) {
    case TensorRole::tokens:
      return at_.tokens;
    case TensorRole::positions:
      return at_.positions;
    case TensorRole::mask:
      return at_.mask;
    case TensorRole::hidden:
      return at_.hidden[(shard + (is_output ? 0 : 1)) % 2];  // in: what the one before put out
    case TensorRole::rope_cos:
      return at_.rope_cos;
    case TensorRole::rope_sin:
      return at_.rope_sin;
    default:
      return at_.logits;
  }
}

void StaticRunner::bind_shared(size_t shard, Which which) {
  const ShardGraph& graph = *(shards_[shard].*which);
  for (const uint32_t direction : {CXG_INPUT, CXG_OUTPUT}) {
    const std::vector<ShardTensor>& parts = direction == CXG_INPUT ? graph.inputs : graph.outputs;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (parts[i].role == TensorRole::k || parts[i].role == TensorRole::v) continue;
      contexts_[shard]->bind(graph.index, direction, i, io_, shared_offset(parts[i], shard, direction == CXG_OUTPUT));
    }
  }
}

void StaticRunner::bind_kv(Which which) {
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    const ShardGraph& graph = *(shards_[shard].*which);
    for (const uint32_t direction : {CXG_INPUT, CXG_OUTPUT}) {
      const bool is_output = direction == CXG_OUTPUT;
      const std::vector<ShardTensor>& parts = is_output ? graph.outputs : graph.inputs;
      for (size_t i = 0; i < parts.size(); ++i) {
        const auto& [role, layer, head, per_head, tensor] = parts[i];
        if (role != TensorRole::k && role != TensorRole::v) continue;
        const size_t offset = role == TensorRole::k ? (is_output ? kv_->k_out(layer, head) : kv_->k_in(layer, head))
                                                    : (is_output ? kv_->v_out(layer, head) : kv_->v_in(layer, head));
        contexts_[shard]->bind(graph.index, direction, i, kv_memory_, offset);
      }
    }
  }
}

/// Cache and mask for graphs that did not run last.
void StaticRunner::prepare(Which which) {
  if (arranged_ == which) return;
  const size_t tokens = (shards_[0].*which)->tokens;
  kv_->arrange(tokens);
  mask_->fill(io_ + at_.mask, tokens, shape_.context, kv_->visible());
  arranged_ = which;
}

/// Up to A tokens through all shards. Rows of padding are computed on what the buffers hold; nobody reads them.
void StaticRunner::execute(Which which, std::span<const TokenId> tokens, size_t position) {
  prepare(which);
  if (kv_->update() == KvUpdate::shift_pointer) bind_kv(which);
  auto* const ids = reinterpret_cast<int32_t*>(io_ + at_.tokens);
  auto* const positions = reinterpret_cast<int32_t*>(io_ + at_.positions);
  const bool has_positions = at_.positions != at_.mask;
  const size_t rows = (shards_[0].*which)->tokens;
  for (size_t i = 0; i < rows; ++i) {
    ids[i] = i < tokens.size() ? tokens[i] : 0;
    // Padding stands within the context: the graph looks positions up in a table.
    if (has_positions) positions[i] = static_cast<int32_t>(std::min(position + i, shape_.context - 1));
  }
  for (size_t shard = 0; shard < shards_.size(); ++shard) contexts_[shard]->execute((shards_[shard].*which)->index);
}

std::span<const float> StaticRunner::logits_of(Which which, size_t row) {
  const cxg_tensor& tensor = tensor_of((shards_.back().*which)->outputs, TensorRole::logits);
  const size_t row_bytes = shape_.vocabulary * element_bytes(tensor.type);
  dequantise(tensor, io_ + at_.logits + row * row_bytes, 1, logits_);
  return logits_;
}

std::span<const float> StaticRunner::feed(std::span<const TokenId> tokens, const Feed& feed) {
  assert(!tokens.empty() && length() + tokens.size() <= capacity());
  const size_t before = length(), total = tokens.size();
  const auto was_cancelled = [&] { return feed.cancelled && *feed.cancelled; };
  const auto report = [&](Which which, size_t first_row, size_t count, size_t done) {
    if (feed.on_logits) {
      for (size_t i = 0; i < count; ++i) feed.on_logits(done + i, logits_of(which, first_row + i));
    }
    if (feed.on_progress) feed.on_progress(done + count, total);
    return done + count == total && !feed.on_logits ? logits_of(which, first_row + count - 1)
                                                    : std::span<const float>(logits_);
  };

  if (mode_ == GraphMode::prefill) {
    if (was_cancelled()) return {};
    std::vector<TokenId> all = history_;
    all.insert(all.end(), tokens.begin(), tokens.end());
    execute(&Shard::prefill, all, 0);
    history_ = std::move(all);
    return report(&Shard::prefill, before, total, 0);
  }
  // Of a prompt, chunks go as far as the prefill graph's window reaches; what is left goes token by token.
  const size_t chunk = mode_ == GraphMode::hybrid && total > 1 ? shape_.prefill_tokens : 0;
  std::span<const float> last;
  for (size_t done = 0; done < total;) {
    if (was_cancelled()) return {};
    const size_t part = std::min(chunk, total - done);
    const bool as_chunk = part > 0 && length() + part <= shape_.context - shape_.prefill_tokens;
    const Which which = as_chunk ? &Shard::prefill : &Shard::decode;
    const size_t count = as_chunk ? part : 1;
    const std::span<const TokenId> now = tokens.subspan(done, count);
    execute(which, now, length());
    const Columns held = kv_->visible();
    kv_->append(count);
    const Columns visible = kv_->visible();
    mask_->show(io_ + at_.mask, kv_->tokens(), shape_.context,
                visible.last > held.last ? Columns{held.last, visible.last} : Columns{visible.first, held.first});
    history_.insert(history_.end(), now.begin(), now.end());
    last = report(which, 0, count, done);
    done += count;
  }
  return last;
}

void StaticRunner::truncate(size_t length) {
  assert(length <= history_.size());
  if (length == history_.size()) return;
  history_.resize(length);
  if (mode_ == GraphMode::prefill) return;
  kv_->truncate(length);
  arranged_ = nullptr;  // the mask is written anew
}

/// Where there is no cache, what the graph put out is all there is.
std::vector<float> StaticRunner::read(TensorRole role, size_t layer, size_t head) const {
  const bool is_k = role == TensorRole::k;
  const FixedKvShape& s = kv_->shape();
  assert(layer < s.layers && head < s.heads);
  const size_t index = s.per_head ? head : 0, inner = s.per_head ? 0 : head, d = s.head_dim;
  const cxg_tensor* tensor = nullptr;
  for (const Shard& shard : shards_) {
    const ShardGraph& graph = runs(&Shard::decode) ? *shard.decode : *shard.prefill;
    for (const ShardTensor& part : graph.outputs) {
      if (part.role == role && part.layer == layer && part.head == index) tensor = part.tensor;
    }
  }
  const bool cached = mode_ != GraphMode::prefill;
  const size_t columns = cached ? kv_->window() : shape_.context, first = cached ? kv_->visible().first : 0;
  const size_t base = is_k ? (cached ? kv_->k_in(layer, index) : kv_->k_out(layer, index))
                           : (cached ? kv_->v_in(layer, index) : kv_->v_out(layer, index));
  std::vector<float> rows(length() * d);
  for (size_t t = 0; t < length(); ++t) {
    for (size_t c = 0; c < d; ++c) {
      const size_t element = is_k ? (inner * d + c) * columns + first + t : (inner * columns + first + t) * d + c;
      dequantise(*tensor, kv_memory_ + base + element * s.element_bytes, 1, std::span(&rows[t * d + c], 1));
    }
  }
  return rows;
}

std::vector<float> StaticRunner::read_k(size_t layer, size_t head) const {
  return read(TensorRole::k, layer, head);
}
std::vector<float> StaticRunner::read_v(size_t layer, size_t head) const {
  return read(TensorRole::v, layer, head);
}

StaticRunner::Memory StaticRunner::memory() const {
  Memory memory = {.io = at_.bytes, .kv = kv_->bytes(), .registered = 0};
  for (const auto& context : contexts_) memory.registered += context->registered();
  return memory;
}

std::vector<cxg_timings> StaticRunner::timings(bool prefill) const {
  const Which which = prefill ? &Shard::prefill : &Shard::decode;
  std::vector<cxg_timings> timings(shards_.size());
  if (!runs(which)) return timings;
  for (size_t i = 0; i < shards_.size(); ++i) timings[i] = contexts_[i]->timings((shards_[i].*which)->index);
  return timings;
}

std::string describe(const FixedKv& kv) {
  const FixedKvShape& s = kv.shape();
  const FixedKvBytes& b = kv.layer_bytes();
  const size_t h = s.heads, d = s.head_dim, e = s.element_bytes, l = s.columns(), c = s.context;
  const size_t k_formula = kv.update() == KvUpdate::shift_pointer ? h * (d + 1) * c * e : h * c * d * e;
  const size_t v_formula = kv.update() == KvUpdate::shift_pointer ? (h + 1) * d * l * e : h * c * d * e;
  const bool shifts = kv.update() == KvUpdate::shift_pointer;
  std::string text =
      fmt::format("K and V: {}, {} layers, {} heads of {} channels, {} B a number, {}\n", name(kv.update()), s.layers,
                  h, d, e, s.per_head ? "a tensor a head" : "a tensor a layer");
  text += fmt::format("  a layer's K {:>9} B allocated = {}; the table's {} = {} B\n", b.k_in,
                      shifts ? "heads (head_dim + 1) (context - 1)" : "heads head_dim (context - 1)",
                      shifts ? "heads (head_dim + 1) seq_len" : "heads seq_len head_dim", k_formula);
  text += fmt::format("  a layer's V {:>9} B allocated = {}; the table's {} = {} B\n", b.v_in,
                      shifts ? "(heads + 1) head_dim context, outputs included" : "heads head_dim (context - 1)",
                      shifts ? "(heads + 1) head_dim (seq_len - 1)" : "heads seq_len head_dim", v_formula);
  text += fmt::format("  a layer's outputs: K {} B, V {} B; in all {} B\n", b.k_out, b.v_out, kv.bytes());
  const size_t step = h * d * e;
  text += fmt::format("  moved a decoded token and layer: K {} B = heads head_dim; V {}", step,
                      shifts ? "0 B, the table's 1: a pointer" : fmt::format("{} B = heads head_dim", step));
  return text;
}

}  // namespace contexture
